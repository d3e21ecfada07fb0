"""Arguments and options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file.")]
RewardModel = Annotated[str, typer.Argument(metavar="REWARD_MODEL", help="A run of stage rm, a folder or a hub id.")]
RewardFile = Annotated[
    Path | None,
    typer.Option("--rewards", metavar="FILE", help="Python file with reward functions, marked with @reward."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Allow the code of a run that was created on another machine. It runs with your permissions."
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Run id, the beginning of one, `last`, or ssh://host/run.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]
Detach = Annotated[bool, typer.Option("--detach")]
