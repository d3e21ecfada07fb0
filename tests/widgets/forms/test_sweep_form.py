"""The sweep in the form as its front end drives it, and the view of its runs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from llf_core.config import ConfigError
from llf_core.launch import Run
from llf_core.runs import RunWriter, create_run, status
from llf_widgets.forms import preflight
from llf_widgets.forms.sweep_form import SweepView
from tests.widgets.forms.test_studio import tell, type_into

if TYPE_CHECKING:
    from pathlib import Path

    from llf_widgets.forms import Studio
    from tests.widgets.forms.conftest import Launches


@pytest.fixture
def open_(studio: Studio) -> Any:
    studio._sweep._expanded = True
    return studio._sweep


def values(pane: Any, key: str, text: str) -> None:
    tell(pane, type="values", key=key, text=text)


def said(pane: Any) -> str:
    return " ".join(message["text"] for message in pane._messages)


def test_nothing_is_worked_out_while_it_is_closed(studio: Studio) -> None:
    assert studio._sweep._rows == []
    studio._sweep._expanded = True
    (row,) = studio._sweep._rows
    assert (row["key"], row["text"]) == ("learning_rate", "3.3e-4, 1e-3, 3e-3")
    assert studio._sweep._sentence == "3 runs, one after the other."
    assert studio._sweep._ready
    titles = [title for title, _ in studio._sweep._choices]
    assert titles == ["Model", "Data", "Method", "Training", "Where"]


def test_proposals_follow_the_form_until_something_is_typed(studio: Studio, open_: Any) -> None:
    type_into(studio, "learning_rate", "2e-4")
    assert open_._rows[0]["text"] == "6.7e-5, 2e-4, 6e-4"
    values(open_, "learning_rate", "1e-4")
    type_into(studio, "learning_rate", "2e-3")
    assert open_._rows[0]["text"] == "1e-4"
    assert open_._sentence == "1 run, one after the other."


def test_two_fields_are_combined_and_what_was_typed_is_kept(open_: Any) -> None:
    tell(open_, type="add")
    tell(open_, type="field", row=1, key="lora_rank")
    values(open_, "lora_rank", "4, 8")
    assert open_._sentence == "6 runs (3 × 2), one after the other."  # noqa: RUF001 - the sign of a product
    tell(open_, type="field", row=1, key="seed")
    assert open_._rows[1]["text"] == "42, 43, 44"
    tell(open_, type="field", row=1, key="lora_rank")
    assert open_._rows[1]["text"] == "4, 8"
    tell(open_, type="remove", row=0)
    assert [row["key"] for row in open_._rows] == ["lora_rank"]


def test_a_bad_value_stays_and_keeps_the_button_off(open_: Any, launches: Launches) -> None:
    values(open_, "learning_rate", "1e-4, fast")
    assert open_._rows[0]["text"] == "1e-4, fast"
    assert "Learning rate (`learning_rate`) is 'fast'. Expected a number of at least 0." in said(open_)
    assert (open_._ready, open_._sentence) == (False, "Enter values first.")
    tell(open_, type="start", runs=2)
    assert launches == []


def test_no_value_is_mended_by_its_button(open_: Any) -> None:
    values(open_, "learning_rate", "")
    assert open_._rows[0]["text"] == ""
    tell(open_, type="fix", message=0, fix=0)
    assert open_._rows[0]["text"] == "3.3e-4, 1e-3, 3e-3"
    assert open_._ready


def test_an_error_in_the_form_keeps_it_off_too(studio: Studio, open_: Any) -> None:
    type_into(studio, "lora_rank", "many")
    assert (open_._ready, open_._sentence) == (False, "Fix the errors in the form first.")
    with pytest.raises(ConfigError):
        studio.sweep({"learning_rate": [1e-4]})


def test_a_field_that_the_form_hides_is_no_longer_varied(studio: Studio, open_: Any) -> None:
    tell(open_, type="field", row=0, key="lora_rank")
    type_into(studio, "finetuning_type", "full")
    assert [row["key"] for row in open_._rows] == ["learning_rate"]


def test_it_says_what_the_runs_would_wait_for(studio: Studio, open_: Any) -> None:
    create_run("stage: sft\n", "goes already")
    studio._machine.state(fresh=True)
    studio.refresh()
    assert open_._sentence == "3 runs, one after the other. They start after goes already."


def test_disk_is_looked_at_for_all_runs(studio: Studio, open_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "disk_bytes", lambda _: 1e9)
    monkeypatch.setattr(preflight, "free_bytes", lambda _: 2.5e9)
    studio.refresh()
    assert "The 3 runs will write about 3.0 GB, and 2.5 GB are free" in said(open_)
    assert not open_._ready


def test_button_starts_the_runs_and_shows_them_compared(studio: Studio, open_: Any, launches: Launches) -> None:
    values(open_, "learning_rate", "1e-4, 3e-4")
    tell(open_, type="start", runs=3)  # what it said before the last value was known
    assert launches == []
    tell(open_, type="start", runs=2)
    tell(open_, type="start", runs=2)  # a double click
    assert [config.get("learning_rate") for config in launches] == [1e-4, 3e-4]
    assert launches.queue
    assert launches.name == "smollm2-135m-instruct-sft-lora learning_rate=3e-4"
    assert len(studio.runs) == 2
    assert open_._sentence == "Started 2 runs, one after the other. Progress is shown below."
    view = studio.children[2]
    assert type(view).__name__ == "SweepView"
    rows = view._table.view["rows"]
    assert [(row["values"], row["state"]) for row in rows] == [(["1e-4"], "queued"), (["3e-4"], "queued")]
    heads = [run["label"] for run in view._comparison._view.view["runs"]]
    assert heads == ["lr 1e-4", "lr 3e-4"]
    assert studio.runs[0].id in studio._repr_mimebundle_()["text/plain"]
    tell(open_, type="again")
    assert open_._ready
    view.close()


def test_what_fails_is_told_beside_the_button(studio: Studio, open_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device.")

    monkeypatch.setattr("llf_core.launch.parameter_sweep.launch", fail)
    tell(open_, type="start", runs=3)
    assert said(open_) == "No space left on device."
    assert open_._ready
    assert studio.runs == ()


def test_runs_are_followed_and_the_best_is_marked(studio: Studio) -> None:
    first, second = studio.sweep({"lora_rank": [4, 8], "quantization_bit": [None]})
    view = studio.children[2]
    for run, loss in ((first, 1.5), (second, 1.25)):
        writer = RunWriter(run.folder, 1)
        writer.status(state="running", total=2)
        writer.metric(2, {"loss": loss})
        writer.flush()
        status.update(run.folder, step=2)
        writer.close("finished")
    assert view._poller.join(120)  # all have ended
    rows = view._table.view["rows"]
    assert [(row["values"], row["state"], row["step"], row["result"], row["best"]) for row in rows] == [
        (["4", "null"], "finished", "2 of 2", "1.500", False),
        (["8", "null"], "finished", "2 of 2", "1.250", True),
    ]
    assert not view._table.view["live"]
    tell(view._table, type="monitor", id=second.id)
    assert [getattr(part, "run_id", "") for part in view.children] == ["", second.id, ""]
    tell(view._table, type="monitor", id=first.id)
    with pytest.raises(ValueError, match="'none' is no run of this sweep"):
        view.show_monitor("none")
    assert (view.children[1].run_id, view._table.open_run) == (first.id, first.id)
    tell(view._table, type="monitor", id=first.id)
    assert (len(view.children), view._table.open_run) == (2, "")
    view.close()


def test_the_eight_best_of_many_are_compared(studio: Studio) -> None:
    runs = studio.sweep({"lora_rank": list(range(1, 11))})
    view = studio.children[2]
    for number, run in enumerate(runs):
        writer = RunWriter(run.folder, 1)
        writer.metric(1, {"eval_loss": 2.0 - number / 10})
        writer.close("finished")
    view._poller.stop()
    assert view._poller.join(60)
    view._poll()
    assert view._compared_runs == list(range(2, 10))
    assert len(view._comparison._view.view["runs"]) == 8
    assert view._table.view["metric"] == "Evaluation loss, best"
    assert view._table.note == "Below: the 8 with the lowest loss so far."
    view.close()


def test_a_sweep_is_stopped_as_a_whole(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = studio.sweep({"lora_rank": [4, 8]})
    asked = []
    monkeypatch.setattr("llf_core.launch.Run.stop", lambda run, *, by: asked.append((run.id, by)))
    tell(studio.children[2]._table, type="stop")
    assert asked == [(runs[1].id, "form"), (runs[0].id, "form")]
    studio.children[2].close()


def test_more_fields_than_there_are_cannot_be_added_and_none_twice(open_: Any) -> None:
    for _ in range(40):
        tell(open_, type="add")
    keys = [row["key"] for row in open_._rows]
    assert len(keys) == len(set(keys)) < 40
    tell(open_, type="field", row=0, key=keys[1])
    assert [row["key"] for row in open_._rows] == keys
    tell(open_, type="add")
    assert [row["key"] for row in open_._rows] == keys


def test_a_run_that_was_deleted_ends_no_stop_and_keeps_no_looks(tmp_path: Path) -> None:
    runs = [Run(create_run("dataset: llf_demo\n", name, tmp_path)) for name in ("a", "b")]
    view = SweepView(runs, ["seed"])
    view._poller.stop()
    assert view._poller.join(60)
    shutil.rmtree(runs[1].folder.path)
    view.stop()
    assert [path.name for path in runs[0].folder.control.iterdir()]
    status.update(runs[0].folder, state="stopped")
    assert view._poll() is None
    view.close()
