"""What a process logs goes through `logging`, in one layout a run."""

import logging
import re
from pathlib import Path

import pytest

from llf_core.runs.log_handler import LOGGER, log_to_run

ROOT = Path(__file__).parents[3] / "llf_core"
RESULTS = {"cli", "evaluation/worker_process.py", "launch/progress_line.py", "launch/run.py", "runs/log_handler.py"}
"""What prints the result of a command or a cell, and the handler itself."""


@pytest.fixture
def run_log():
    before = LOGGER.handlers, LOGGER.level, LOGGER.propagate
    log_to_run()
    yield logging.getLogger("llf_core.training.session")
    LOGGER.handlers, LOGGER.level, LOGGER.propagate = before


def test_a_line_begins_with_the_time_and_a_failure_ends_with_its_trace(run_log, capsys):
    run_log.info("step     1/9  loss 1.250")
    try:
        int("rows")
    except ValueError:
        run_log.exception("The run failed.")
    step, failed, *trace = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  step     1/9  loss 1\.250", step)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  The run failed\.", failed)
    assert trace[-1] == "ValueError: invalid literal for int() with base 10: 'rows'"


def test_only_results_are_printed():
    printing = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if re.search(r"^\s*print\(", path.read_text(), re.MULTILINE)
    }
    assert {name for name in printing if name not in RESULTS and name.partition("/")[0] not in RESULTS} == {
        "models/card.py"  # lines of a model card
    }
