"""The parts of a monitor; `tests/server/test_monitor.py` has what the server makes of them."""

from __future__ import annotations

import base64
import json
import shutil

import numpy as np
import pytest

from llf_core.runs import RunWriter, create_run
from llf_widgets.monitor.run_view import PARTS, Options, RunView
from llf_widgets.monitor.static import bundle
from llf_widgets.server.runs import Opened, shown_details


def trace(part, number):
    return np.frombuffer(base64.b64decode(part["figure"]["data"][number]["y"]["bdata"]), "<f4")


def test_a_part_is_new_when_what_it_is_made_of_changed(trainer):
    run = trainer()
    view = RunView(run.folder)
    assert view.look() >= {"head", "charts", "events"}
    run.steps(1, 2)
    assert view.look() >= {"head", "charts"}
    run.folder.log.write_text("one\n")
    assert "log" in view.look()
    assert view.part("log")["lines"] == ["one"]
    run.writer.close("finished")
    view.look()
    assert view.look() == set()


def test_the_step_axis_of_a_run_that_was_stopped_ends_where_it_did(trainer):
    run = trainer(total=100)
    run.steps(1, 4)
    view = RunView(run.folder)
    view.look()
    assert view.part("charts")["figure"]["layout"]["xaxis"]["range"] == [0, 100]
    run.writer.status(step=4)
    run.writer.close("stopped")
    assert "charts" in view.look()
    assert view.part("charts")["figure"]["layout"]["xaxis"]["range"] == [0, 4]


def test_a_reader_chooses_over_how_many_steps_a_curve_is_smoothed(trainer):
    run = trainer(total=10)
    run.steps(1, 10)
    view = RunView(run.folder)
    view.look()
    raw, as_logged = 2 - np.arange(1, 11) / 10, view.part("charts", Options(window=1))
    assert trace(as_logged, 1) == pytest.approx(raw)
    by_hand = [np.mean(raw[max(0, step - 4) : step]) for step in range(1, 11)]
    assert trace(view.part("charts", Options(window=4)), 1) == pytest.approx(by_hand)
    automatic = view.part("charts", Options(window=0))
    assert automatic["window"] == view.watch.window == 10
    assert trace(automatic, 1)[-1] == pytest.approx(raw.mean())


def test_charts_are_drawn_once_for_the_same_options(trainer):
    run = trainer()
    run.steps(1, 3)
    view = RunView(run.folder)
    view.look()
    assert view.part("charts", Options(window=4)) is view.part("charts", Options(window=4))
    assert view.part("charts", Options(window=4)) is not view.part("charts", Options(window=5))
    first = view.part("charts")
    run.steps(4, 4)
    view.look()
    assert view.part("charts") is not first


def test_every_part_is_in_the_first_news(trainer):
    view = RunView(trainer().folder)
    news = view.news({})
    assert set(news["parts"]) == set(PARTS)
    assert view.news(news["marks"])["parts"].keys() <= {"head", "charts"}  # a heartbeat may have come
    assert set(view.news({"head": 5, "else": None})["parts"]) == set(PARTS)


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
    marks = view.news({})["marks"]
    shutil.rmtree(first.path)
    second.path.rename(first.path)
    news = view.news(marks)
    assert set(news["parts"]) == set(PARTS)
    assert trace(news["parts"]["charts"], 0).tolist() == [9.0, 8.0]
    assert [row["text"] for row in news["parts"]["events"] if "Loss" in row["text"]] == [
        "warning: Loss 8.0.",
        "warning: Loss 9.0.",
    ]
    assert news["parts"]["answers"][0]["texts"] == ["9.0", "8.0"]
    assert view.news(news["marks"])["parts"] == {}


def test_no_part_turns_the_text_around_it(llf_home):
    turned = "\u202egnp\x1b[31m"
    folder = create_run(f"model_name_or_path: {json.dumps(turned)}\nstage: sft\n", "demo")
    writer = RunWriter(folder, 1)
    writer.metric(1, {"loss": 1.0, turned: 2.0})
    writer.event("warning", message=turned, fix=turned)
    writer.sample(step=1, kind="answer", prompt=turned, text=turned, of="tuned")
    folder.log.write_text(turned)
    view = RunView(folder)
    news = view.news({}, Options(details=True))
    shown = [news, bundle(view.watch), shown_details(Opened(folder))]
    for one in shown:
        assert "\u202e" not in json.dumps(one, ensure_ascii=False)
        assert "gnp" in json.dumps(one)
    assert "\x1b" not in shown[1]["text/plain"]
