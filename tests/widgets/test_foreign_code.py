"""Views of a run that a stranger made run nothing of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import llf_widgets as llf
from llf_core.runs.foreign_code import UntrustedCodeError
from llf_widgets.export_view import ExportView
from llf_widgets.magics import COMMANDS
from tests.hostile import evil_model, evil_run

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


@pytest.mark.launches
@pytest.mark.parametrize("opens", ["evaluation", "export"])
def test_evaluation_and_export_show_the_code_and_go_on_when_it_is_allowed(
    opens: str, tiny_model_dir: Path, tmp_path: Path, warm_python: Path
) -> None:
    mark, model = tmp_path / "it-ran", tmp_path / "model"
    evil_model(model, tiny_model_dir, mark)
    file = tmp_path / "model.yaml"
    file.write_text(f"model_name_or_path: {model}\ntrust_remote_code: true\n")
    rows = [{"instruction": "Say one.", "output": "one"}]
    view = (
        llf.Evaluate(file, on=rows)
        if opens == "evaluation"
        else ExportView(file, "merged", folder=tmp_path / "exported")
    )
    try:
        with pytest.raises((UntrustedCodeError, RuntimeError), match="you have not allowed it"):
            view.wait(240)
        (code,) = view._code
        assert (code["folder"], view._state) == (str(model), "failed")
        assert "evil.py" in [file["name"] for file in code["files"]]
        assert not mark.exists()
        view._handle_custom_msg({"type": "allow"}, [])
        assert view._code == []
        view.wait(240)
        assert (view._state, mark.exists()) == ("done", True)
    finally:
        view.close()
