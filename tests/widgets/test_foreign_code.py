"""Views of a run that a stranger made run nothing of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import llf_widgets as llf
from llf_core.runs.foreign_code import UntrustedCodeError
from llf_widgets.magics import COMMANDS
from tests.hostile import evil_run

if TYPE_CHECKING:
    from pathlib import Path


def test_views_run_nothing_and_resume_asks(tiny_model_dir: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    run = evil_run(tiny_model_dir, mark, "stopped")
    monitor = llf.Monitor(run)
    monitor._repr_mimebundle_()
    compare = llf.Compare([run.id, run.id])
    compare.html()
    compare.frame()
    found = json.loads(monitor._handle_request("code", {}))
    assert [one["owner"].split()[1] for one in found["code"]] == ["functions", "model"]
    for args in ({}, {"trust": "0" * 64}, {"trust": True}):
        with pytest.raises(UntrustedCodeError):
            monitor._handle_request("resume", args)
    with pytest.raises(UntrustedCodeError):
        COMMANDS["resume"](run.id)
    with pytest.raises(UntrustedCodeError):
        llf.losses(run.id)
    monitor.close()
    assert not mark.exists()
