from __future__ import annotations

import base64
import gc
import json
import math
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anywidget
import numpy as np
import psutil
import pytest
from ipywidgets.widgets.widget import _instances
from traitlets import TraitError

from llf_core.runs import RunWriter, create_run, read_status
from llf_widgets.monitor import Monitor
from llf_widgets.monitor.widget import MonitorView

EVIL = "<script>alert(1)</script>"
WORDS = {"stop": "Stop", "checkpoint": "Checkpoint", "evaluate": "Evaluation", "sample": "Sample"}


def loss_of(view):
    """What the front end has of the first curve."""
    [value, *_] = [trace["y"] for trace in view._view.charts["figure"]["data"]]
    return np.frombuffer(base64.b64decode(value["bdata"]), "<f4")


def points(view):
    return len(loss_of(view))


def until(condition, seconds=120.0):
    """Waits for the poller; its pace is 3 looks a second."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.02)


@pytest.fixture
def monitor():
    made = []

    def make(run, **options):
        made.append(Monitor(run, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def threads(run_id):
    return [thread for thread in threading.enumerate() if thread.name == f"llf-monitor-{run_id}"]


def test_a_finished_run_needs_no_thread(trainer, monitor):
    run = trainer()
    run.steps(1, 10)
    run.writer.close("finished")
    view = monitor(run.folder.id)
    assert view.state == "finished"
    assert view._view.head["status_text"].startswith("10 steps in 0:0")
    assert points(view) == 10
    assert threads(view.run_id) == []
    assert view.wait(0) == "finished"


def test_it_follows_a_live_run_and_ends_by_itself(trainer, monitor):
    run = trainer(total=6)
    view = monitor(run.folder)
    assert view._view.head["state"] == "running"
    run.steps(1, 4)
    until(lambda: points(view) == 4)
    until(lambda: view._view.head["step"] == 4)
    run.folder.log.write_text("one\ntwo\n")
    until(lambda: view._view.log["lines"] == ["one", "two"])
    run.steps(5, 6)
    run.writer.close("finished")
    assert view.wait(120) == "finished"
    assert view._poller.join(120)
    assert threads(view.run_id) == []
    assert points(view) == 6
    assert view._view.events[0]["text"] == "finished"  # written after the status: the last event is not lost


def test_the_last_event_is_waited_for_however_late_it_is_written(trainer, monitor, monkeypatch):
    run, naps, seen, write = trainer(total=3), [], threading.Event(), RunWriter.event

    def write_late(writer, kind, **fields):
        assert kind != "state" or seen.wait(60)
        write(writer, kind, **fields)

    def sleep(_):
        naps.append(1)
        if len(naps) == 3:
            seen.set()
            closing.join(60)

    closing = threading.Thread(target=run.writer.close, args=("finished",))
    monkeypatch.setattr(RunWriter, "event", write_late)
    monkeypatch.setattr("llf_widgets.monitor.widget.time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    view = monitor(run.folder)
    closing.start()
    try:
        assert view.wait(120) == "finished"
        assert view._poller.join(120)
        assert view._view.events[0]["text"] == "finished"
    finally:
        seen.set()
        closing.join(60)


def test_the_beat_goes_on_while_nothing_happens(trainer, monitor):
    run = trainer()
    view = monitor(run.folder)
    first = view._view.kernel_heartbeat
    until(lambda: view._view.kernel_heartbeat > first)


def test_two_views_of_one_run(trainer, monitor):
    run = trainer(total=3)
    views = [monitor(run.folder), monitor(run.folder.id)]
    run.steps(1, 3)
    run.writer.close("stopped", "Stopped at step 3 of 3 with checkpoint-3.")
    assert [view.wait(120) for view in views] == ["stopped", "stopped"]


def test_closing_ends_the_thread_and_leaves_the_run(trainer, monitor):
    run = trainer()
    view = monitor(run.folder)
    view.close()
    until(lambda: not view._poller.is_alive)
    assert json.loads(run.folder.status.read_text())["state"] == "running"


def test_a_folder_that_breaks_and_heals_is_said_and_followed(trainer, monitor):
    run = trainer(total=9)
    run.steps(1, 2)
    view = monitor(run.folder)
    kept = run.folder.metrics.read_bytes()
    run.folder.metrics.unlink()
    run.folder.metrics.mkdir()
    until(lambda: "metrics.jsonl is a folder. Expected a regular file" in json.dumps(view._view.events))
    run.folder.metrics.rmdir()
    run.folder.metrics.write_bytes(kept)
    run.writer._metrics.close()
    run.steps(3, 5)
    until(lambda: view._view.error == "" and view._view.head["step"] == 5)
    assert "is a folder" not in json.dumps(view._view.events)


def test_nan_reaches_the_front_end_as_text_and_as_a_gap(trainer, monitor):
    run = trainer()
    run.steps(1, 3)
    run.steps(4, 4, loss=math.nan)
    view = monitor(run.folder)
    json.dumps(view._view.head, allow_nan=False)
    assert view._view.head["numbers"][0]["value"] == "NaN"
    assert math.isnan(loss_of(view)[3])


def test_texts_of_a_run_stay_data(trainer, monitor):
    run = trainer(name=EVIL)
    run.writer.event("warning", message=EVIL)
    run.folder.log.write_text(EVIL)
    view = monitor(run.folder)
    assert view._view.head["name"] == EVIL
    assert view._view.head["messages"] == [{"level": "warn", "text": EVIL, "actions": []}]
    assert view._view.log["lines"] == [EVIL]


class TestSteering:
    """What comes through the kernel, where the front end finds no server."""

    def ask(self, view, what, key="k", **args):
        said = []
        view._view.send = said.append
        view._view._handle_custom_msg({"type": what, "args": args, "key": key}, [])
        return said

    @pytest.mark.parametrize("what", ["stop", "checkpoint", "evaluate", "sample"])
    def test_a_request_lands_in_the_folder(self, trainer, monitor, what):
        run = trainer()
        view = monitor(run.folder)
        assert self.ask(view, what) == [{"key": "k", "ok": True, "text": f"{WORDS[what]} requested through the kernel"}]
        (request,) = [json.loads(path.read_text()) for path in run.folder.control.iterdir()]
        assert (request["type"], request["by"]) == (what, "monitor")

    def test_what_can_not_be_done_is_said(self, trainer, monitor):
        run = trainer()
        view = monitor(run.folder)
        (answer,) = self.ask(view, "resume")
        assert (answer["ok"], "Stop it first" in answer["text"]) == (False, True)
        (answer,) = self.ask(view, "dance")
        assert answer["text"].startswith("'dance' is not a known request. Expected one of stop, ")
        (answer,) = self.ask(view, "set", learning_rate=-1)
        assert answer["text"] == "learning_rate is -1. Expected a number above 0 and at most 1."

    def test_a_change_lands_in_the_folder_with_its_value(self, trainer, monitor):
        run = trainer()
        assert self.ask(monitor(run.folder), "set", learning_rate=1e-4)[0]["ok"]
        (request,) = [json.loads(path.read_text()) for path in run.folder.control.iterdir()]
        assert request["args"] == {"learning_rate": 1e-4}

    def test_a_prompt_is_watched_through_the_kernel_too(self, trainer, monitor):
        run, said = trainer(), []
        view = monitor(run.folder)
        view._view.send = said.append
        view._view._handle_custom_msg({"type": "set", "args": {"watch": "Say hi."}, "key": "k"}, [])
        assert said[0]["ok"]
        (request,) = [json.loads(path.read_text()) for path in run.folder.control.iterdir()]
        assert (request["type"], request["args"]) == ("set", {"watch": "Say hi."})

    def test_garbage_is_no_request(self, trainer, monitor):
        view = monitor(trainer().folder)
        said = []
        view._view.send = said.append
        for message in ("stop", None, {"type": 5, "key": "k"}, {}):
            view._view._handle_custom_msg(message, [])
        assert said == []

    def test_a_stop_of_an_ended_run_is_told_so(self, trainer, monitor):
        run = trainer()
        run.writer.close("finished")
        assert self.ask(monitor(run.folder), "stop")[0]["text"] == "The run has already ended"


def test_an_ended_run_that_goes_on_is_seen_again(trainer, monitor):
    from llf_core.runs import status

    run = trainer(total=9)
    run.steps(1, 3)
    run.writer.close("stopped")
    view = monitor(run.folder)
    assert view.state == "stopped"
    status.begin_attempt(run.folder, 2)
    second = RunWriter(run.folder, 2)
    second.start_heartbeat(0.05)
    second.status(state="running", step=3, total=9)
    view._view._handle_custom_msg({"type": "refresh"}, [])
    until(lambda: not view._ended.is_set())  # after the state: from here on there is an end to wait for
    assert view.state == "running"
    second.close("finished")
    assert view.wait(120) == "finished"


def test_traits_alone_rebuild_the_view_after_a_reload(trainer, monitor):
    run = trainer()
    run.steps(1, 3)
    view = monitor(run.folder)
    state = view._view.get_state()
    assert state["head"]["step"] == 3
    assert points(view) == 3
    assert ".llf-Numbers" in state["_css"]
    assert isinstance(view._view, anywidget.AnyWidget)
    assert all("password" not in name for name in MonitorView.class_trait_names())


def test_a_page_that_has_the_parts_from_the_server_is_sent_the_head_alone(trainer, monitor, monkeypatch):
    for module in ("widget", "snapshot"):  # it looks when it is told to, and not again
        monkeypatch.setattr(f"llf_widgets.monitor.{module}.MAX_INTERVAL", 1000.0)
    run = trainer(total=9)
    run.steps(1, 2)
    view = monitor(run.folder)
    view._view.uses_server = True
    run.steps(3, 6)
    view.refresh()
    until(lambda: view._view.head["step"] == 6)
    assert points(view) == 2
    view._view.uses_server = False  # the server is gone: the kernel takes over at once
    until(lambda: points(view) == 6)


def test_a_reader_chooses_the_charts_and_the_smoothing(trainer, monitor):
    run = trainer()
    run.steps(1, 3)
    run.writer.close("finished")
    view = monitor(run.folder)
    before = view._view.charts
    view._view.options = {"details": True, "window": 2}
    until(lambda: view._view.charts is not before)
    chosen = view._view.options
    for window in (-1, 100_001, "2", True):
        with pytest.raises(TraitError, match=r"window is .* Expected an integer from 0 to 100000"):
            view._view.options = {"window": window}
    assert view._view.options == chosen


def test_stylesheets_name_no_colour_of_their_own_outside_the_tokens():
    sheet = Path(__file__).parents[3] / "labextension" / "widgets" / "monitor" / "monitor.css"
    for line in sheet.read_text().splitlines():
        assert "#" not in line.split("/*")[0], f"a colour that no theme can change: {line}"


def test_views_that_are_closed_leave_nothing_behind(trainer):
    ended = trainer()
    ended.steps(1, 3)
    ended.writer.close("finished")
    waits = create_run("stage: sft\n", "waits")  # live, and nobody here writes it
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def open_and_close():
        for folder in (ended.folder, waits):
            view = Monitor(folder)
            alive.update((view, view._view, view._run_view, view.examples()))
            until(lambda view=view: view._poller.is_alive or view.state == "finished")
            view.close()
            assert view._poller.join(120)

    open_and_close()  # what is made once a process
    process = psutil.Process()
    before = (threading.active_count(), process.num_fds(), set(_instances))
    for _ in range(15):
        open_and_close()
    # fewer where something of an earlier test has ended meanwhile
    until(lambda: threading.active_count() <= before[0] and process.num_fds() <= before[1])
    assert set(_instances) <= before[2]
    gc.collect()
    assert not list(alive)


def test_closing_the_view_ends_the_wait_and_not_the_run(trainer, monitor):
    run = trainer(total=6)
    view = monitor(run.folder)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(view.wait)
        with pytest.raises(TimeoutError):
            waits.result(timeout=0.5)
        view.close()
        assert waits.result(timeout=60) == "running"
    view._poll()  # a look that was on its way when the view was closed
    assert view.wait(0) == "running"
    assert not view._poller.is_alive or view._poller.join(60)
    assert read_status(run.folder).state == "running"


def test_a_closed_view_is_not_read_again(trainer, monitor):
    view = monitor(trainer(total=6).folder)
    view.close()
    assert view._poller.join(60)
    view.refresh()
    assert not view._poller.is_alive


def test_a_picture_that_cannot_be_drawn_does_not_keep_the_wait(trainer, monitor, monkeypatch):
    def fail(_):
        raise ValueError("no picture")

    run = trainer(total=6)
    view = monitor(run.folder)
    view._displays.append((None, {}))
    monkeypatch.setattr("llf_widgets.monitor.widget.mime_bundle", fail)
    run.writer.close("finished")
    assert view.wait(120) == "finished"
    assert view._ended.is_set()
    view._displays.clear()
