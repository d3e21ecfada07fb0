"""What a process logs goes through `logging`, in one layout a run."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llf_core.runs.process_log import LOGGER, log_to_run

ROOT = Path(__file__).parents[3] / "llf_core"
RESULTS = {
    "cli",
    "evaluation/worker_process.py",
    "launch/run.py",
    "runs/process_log.py",
}
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
        "launch/launchers/ray_driver.py",  # why the task could not begin, to the process that started it
        "launch/sync_process.py",  # its answer to the process that asks
        "models/card.py",  # lines of a model card
    }


def test_modules_that_are_processes_log_by_their_own_name():
    for path in ROOT.rglob("*.py"):
        source = path.read_text()
        if '__name__ == "__main__"' in source and (
            named := re.search(r"^logger = .*getLogger\((.*?)\)", source, re.MULTILINE)
        ):
            name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
            assert named[1] == f'"{name}"', path  # `__name__` is `__main__` in the process


def test_what_a_process_logs_reaches_the_handler_of_llf(tmp_path):
    # Without the last resort of `logging`, a line that no handler takes is lost.
    program = (
        "import logging, runpy, sys; logging.lastResort = None; "
        "runpy.run_module('llf_core.training.measure', run_name='__main__', alter_sys=True)"
    )
    missing = tmp_path / "missing.yaml"
    done = subprocess.run([sys.executable, "-c", program, missing], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "The measurement failed." in done.stderr
