"""What needs a model, asked of a process of its own, so that no view ever holds one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def ask(module: str, *arguments: str, home: Path | None = None) -> Any:
    """What a module prints with `answer`.

    Args:
        module: run with `python -m`.
        arguments: of its command line.
        home: `LLF_HOME` where it is not the environment's.

    Raises:
        RuntimeError: it failed; one sentence.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]  # -P: a `datasets.py` beside the notebook is no library
    env = os.environ | ({} if home is None else {"LLF_HOME": str(home)})
    child = subprocess.run(command, capture_output=True, text=True, check=False, env=env)  # noqa: S603 - our own module
    said = child.stdout.strip().splitlines()
    if child.returncode == 0:
        return json.loads(said[-1])
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise RuntimeError(f"The process that has the model was ended by {name}. Expected enough free memory for it.")
    if said and said[-1].startswith('{"error"'):
        raise RuntimeError(json.loads(said[-1])["error"])
    raise RuntimeError((child.stderr.strip().splitlines() or ["The child process said nothing."])[-1])


def answer(make: Callable[[], Any]) -> None:
    """Prints what is made as one line of JSON, or why it can't be; what is printed on the way goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            made = make()
    except Exception as error:  # noqa: BLE001 - told where it was asked
        from llf_core.stages.failures import explain

        traceback.print_exc()
        said = str(error) if type(error) in {ValueError, FileNotFoundError} else explain(error).reason
        print(json.dumps({"error": said}))  # noqa: T201 - the result
        sys.exit(1)
    print(json.dumps(made))  # noqa: T201 - the result, in ASCII: no sign of an answer breaks its line
