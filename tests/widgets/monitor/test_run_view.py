"""The parts of a monitor; `tests/server/test_monitor.py` has what the server makes of them."""

from __future__ import annotations

import base64
import json
import shutil

import numpy as np
import pytest

from llf_core.runs import RunWriter, create_run
from llf_widgets.monitor.mime_bundle import mime_bundle
from llf_widgets.monitor.run_view import SECTIONS, RunView, ViewOptions
from llf_widgets.server.runs import RunDetails, details_json
from tests.widgets.drawn_charts import x_axis


def trace(part, number):
    return np.frombuffer(base64.b64decode(part["figure"]["data"][number]["y"]["bdata"]), "<f4")


def test_a_part_is_new_when_what_it_is_made_of_changed(trainer):
    run = trainer()
    view = RunView(run.folder)
    assert view.refresh() >= {"head", "charts", "events"}
    run.steps(1, 2)
    assert view.refresh() >= {"head", "charts"}
    run.folder.log.write_text("one\n")
    assert "log" in view.refresh()
    assert view.section("log")["lines"] == ["one"]
    run.writer.close("finished")
    view.refresh()
    assert view.refresh() == set()


def test_what_is_trained_is_the_same_in_monitor_and_sidebar(trainer):
    run = trainer()
    view, details = RunView(run.folder), RunDetails(run.folder)
    view.refresh()
    before = view.section("trained")
    assert before["grid"] is None
    assert before == details.read()["trained"]
    row = {"module": "q_proj", "stack": "layers", "states": {"adapter": [[0, 1]]}, "parameters": 9, "trained": 1}
    run.writer.event("model", parameters=9, trainable=1, model_type="qwen3", map=[row])
    assert "trained" in view.refresh()
    shown = view.section("trained")
    assert shown["grid"]["share"] == "1 of 9 parameters are trained (11.1 %)."
    assert {one["server"]: one["verdict"] for one in shown["servers"]["verdicts"]}["Ollama"] == "no"  # of qwen3
    assert shown == details_json(details)["trained"]
    run.steps(1, 2)
    assert "trained" not in view.refresh()
    run.folder.output.mkdir()  # the result counts as soon as its event is there
    (run.folder.output / "config.json").write_text('{"model_type": "qwen3"}')
    run.writer.event("output", path="output", bytes=1)
    view.refresh()
    assert view.section("trained")["servers"]["whole"] == details.read()["trained"]["servers"]["whole"] != ""


def test_the_step_axis_of_a_run_that_was_stopped_ends_where_it_did(trainer):
    run = trainer(total=100)
    run.steps(1, 4)
    view = RunView(run.folder)
    view.refresh()
    assert x_axis(view.section("charts")["figure"], "Loss")["range"] == [0, 100]
    run.writer.status(step=4)
    run.writer.close("stopped")
    assert "charts" in view.refresh()
    assert x_axis(view.section("charts")["figure"], "Loss")["range"] == [0, 4]


def test_a_reader_chooses_over_how_many_steps_a_curve_is_smoothed(trainer):
    run = trainer(total=10)
    run.steps(1, 10)
    view = RunView(run.folder)
    view.refresh()
    raw, as_logged = 2 - np.arange(1, 11) / 10, view.section("charts", ViewOptions(window=1))
    assert trace(as_logged, 1) == pytest.approx(raw)
    by_hand = [np.mean(raw[max(0, step - 4) : step]) for step in range(1, 11)]
    assert trace(view.section("charts", ViewOptions(window=4)), 1) == pytest.approx(by_hand)
    automatic = view.section("charts", ViewOptions(window=0))
    assert automatic["window"] == view.tracker.window == 10
    assert trace(automatic, 1)[-1] == pytest.approx(raw.mean())


def test_charts_are_drawn_once_for_the_same_options(trainer):
    run = trainer()
    run.steps(1, 3)
    view = RunView(run.folder)
    view.refresh()
    assert view.section("charts", ViewOptions(window=4)) is view.section("charts", ViewOptions(window=4))
    assert view.section("charts", ViewOptions(window=4)) is not view.section("charts", ViewOptions(window=5))
    first = view.section("charts")
    run.steps(4, 4)
    view.refresh()
    assert view.section("charts") is not first


def test_every_part_is_in_the_first_news(trainer):
    view = RunView(trainer().folder)
    updates = view.updates({})
    assert set(updates["sections"]) == set(SECTIONS)
    assert view.updates(updates["revisions"])["sections"].keys() <= {"head", "charts"}  # a heartbeat may have come
    assert set(view.updates({"head": 5, "else": None})["sections"]) == set(SECTIONS)


def test_another_run_in_the_place_of_one_is_shown_from_its_beginning(llf_home):
    def made(losses):
        folder = create_run("stage: sft\n", "one", llf_home)
        writer = RunWriter(folder)
        for step, loss in enumerate(losses, start=1):
            writer.metric(step, {"loss": loss})
            writer.event("warning", message=f"Loss {loss}.")
            writer.sample(step=step, kind="answer", prompt="Hi?", text=f"{loss}", of="tuned")
        writer.close("finished")
        return folder

    first, second = made([3.0, 2.0, 1.0]), made([9.0, 8.0])
    view = RunView(first)
    revisions = view.updates({})["revisions"]
    shutil.rmtree(first.path)
    second.path.rename(first.path)
    updates = view.updates(revisions)
    assert set(updates["sections"]) == set(SECTIONS)
    assert trace(updates["sections"]["charts"], 0).tolist() == [9.0, 8.0]
    assert [row["text"] for row in updates["sections"]["events"] if "Loss" in row["text"]] == [
        "warning: Loss 8.0.",
        "warning: Loss 9.0.",
    ]
    assert updates["sections"]["answers"][0]["texts"] == ["9.0", "8.0"]
    assert view.updates(updates["revisions"])["sections"] == {}


def test_no_part_turns_the_text_around_it(llf_home):
    turned = "\u202egnp\x1b[31m"
    folder = create_run(f"model_name_or_path: {json.dumps(turned)}\nstage: sft\n", "demo")
    writer = RunWriter(folder, 1)
    writer.metric(1, {"loss": 1.0, turned: 2.0})
    writer.event("warning", message=turned, fix=turned)
    writer.sample(step=1, kind="answer", prompt=turned, text=turned, of="tuned")
    folder.log.write_text(turned)
    view = RunView(folder)
    updates = view.updates({}, ViewOptions(details=True))
    shown = [updates, mime_bundle(view.tracker), details_json(RunDetails(folder))]
    for one in shown:
        assert "\u202e" not in json.dumps(one, ensure_ascii=False)
        assert "gnp" in json.dumps(one)
    assert "\x1b" not in shown[1]["text/plain"]
