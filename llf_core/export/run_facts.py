from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config import ConfigError
from llf_core.runs import RunReader, open_run
from llf_core.runs.config_file import run_config
from llf_core.runs.evaluations import results_of

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.runs.evaluations import EvaluationResult

NAMES = ("loss", "eval_loss")
RESULTS = 5


@dataclass(frozen=True)
class RunFacts:
    """Curve (values of `NAMES` by step) and newest evaluations (at most `RESULTS`) of a run."""

    config: RunConfig
    curve: list[tuple[int, dict[str, float]]]
    evaluations: list[EvaluationResult]


def run_facts(run_id: str) -> RunFacts | None:
    """Read what is shown of a run; None if there is none of this id, or its config is no longer valid."""
    if not run_id:
        return None
    try:
        run = open_run(run_id)
        config = run_config(run)
    except (FileNotFoundError, ValueError, ConfigError):
        return None
    columns = RunReader(run).metrics()
    rows: dict[int, dict[str, float]] = {}
    for name in NAMES:
        if name in columns:
            for step, value in zip(columns.steps(name).tolist(), columns.values(name).tolist(), strict=True):
                rows.setdefault(step, {})[name] = value
    found = [one for one in results_of(run) if not one.problem]
    return RunFacts(config, sorted(rows.items()), found[:RESULTS])
