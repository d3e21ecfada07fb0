"""`llf.Inspect` over its real process."""

import json
import os
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from llf_widgets.forms import Studio
from llf_widgets.inspect import Inspect, data_process
from llf_widgets.inspect.widget import summary_html, summary_text
from tests.hostile import evil_model

ROWS = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(5)]
LONG = {"instruction": "Name <b>it</b>.", "output": "the sea and the ship " * 20}
KEYS = ("dataset", "records", "examples", "cut", "dropped", "tokens", "trained_tokens")
OVERVIEW = {
    "sets": [
        dict(zip(KEYS, ("<a>", 1000, 990, 3, 10, 5000, 2500), strict=True)),
        dict(zip(KEYS, ("b", 10, 10, 0, 0, 100, 10), strict=True)),
    ]
}


@pytest.fixture
def inspect(tmp_path, tiny_model_dir):
    """Makes views, and closes them."""
    views = []

    def made(rows, **values):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        views.append(Inspect({"model_name_or_path": str(tiny_model_dir), "dataset": str(path), **values}))
        return views[-1]

    yield made
    for view in views:
        view.close()


def until(condition, seconds=240):
    """Waits for another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.launches
def test_a_view_prepares_shows_and_changes(inspect):
    view = inspect([*ROWS, LONG, ROWS[0], {"instruction": "x", "output": ""}], cutoff_len=64, packing=True)
    assert view.overview()["examples"] == 7
    until(lambda: view._lengths and view._page and view._examples and view._rows)
    assert view._page["kinds"] == {
        "dropped": 1, "cut": 1, "divided": 0, "doubled": 1, "leaked": 0, "unanswered": 1, "longest": 7,
    }  # fmt: skip
    assert view._examples[0]["record"] == 0
    assert "".join(token[0] for turn in view.example(1)["turns"] for token in turn["tokens"]).startswith("<|im_start|>")
    assert view.notable("cut")["rows"][0]["record"] == 5
    assert view.search("say 3")["rows"][0]["record"] == 3
    with pytest.raises(ValueError, match="IndexError"):
        view.example(99)
    assert view.example(np.int64(3))["record"] == view.example(3)["record"] == 3

    view._receive(view, {"type": "page", "kind": "doubled", "offset": 0}, [])
    until(lambda: view._page.get("kind") == "doubled")
    assert [row["record"] for row in view._page["rows"]] == [6]
    view._receive(view, {"type": "search", "query": "say 4", "start": 0}, [])
    until(lambda: view._page.get("kind") == "search")
    view._receive(view, {"type": "example", "number": 2}, [])
    until(lambda: view._examples[0]["number"] == 2)
    view._receive(view, {"type": "rows", "offset": 0, "least": True}, [])
    until(lambda: view._rows["least"])

    first = view._process.pid
    view._receive(view, {"type": "change", "changes": {"drop_duplicates": True, "seed": 7}}, [])
    assert view.overview()["examples"] == 6
    assert (view.config.data.drop_duplicates, view.config.training.seed) == (True, 42)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_data_that_cannot_be_used_is_told_and_can_be_tried_again(inspect, tmp_path):
    view = inspect([{"a": 1}])
    with pytest.raises(RuntimeError, match="match no known format"):
        view.wait(240)
    assert view._state == "failed"
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    view._receive(view, {"type": "reload"}, [])
    assert view.wait(240).overview()["examples"] == 1


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_how_rows_are_read_is_corrected_in_the_view(inspect):
    view = inspect([{"frage": "Hi", "reply": "Yo"}])
    with pytest.raises(RuntimeError, match="match no known format"):
        view.wait(240)
    (found,) = view._readings["readings"]
    assert found["names"] == ["frage", "reply"]
    assert view._readings["roles"]["alpaca"][:3] == ["prompt", "response", "query"]  # what is needed first
    columns = {"prompt": "frage", "response": "reply"}
    view._receive(view, {"type": "change", "changes": {"dataset_format": "alpaca", "dataset_columns": columns}}, [])
    assert view.wait(240).overview()["examples"] == 1
    assert view.config.data.dataset_columns == columns


@pytest.mark.launches
@pytest.mark.usefixtures("warm_python")
def test_a_setting_that_is_not_valid_is_told(inspect, monkeypatch):
    view = inspect(ROWS)
    view.wait(240)
    view._receive(view, {"type": "change", "changes": {"cutoff_len": -5}}, [])
    assert (view._state, "cutoff_len" in view._note) == ("ready", True)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    view._receive(view, {"type": "reload"}, [])
    assert view._state == "failed"
    with pytest.raises(RuntimeError, match="/nowhere/python"):
        view.wait(60)


def test_a_line_that_the_end_of_the_process_has_cut_off_hides_no_end(monkeypatch, tmp_path):
    code = tmp_path / "torn.py"
    code.write_text("print('{\"progress\": \"a\", \"ro', end='', flush=True)\nraise SystemExit('out of memory')")
    monkeypatch.setattr(data_process, "COMMAND", (str(code),))
    ended = Future()
    process = data_process.DataProcess("", print, print, print, ended.set_result)
    process.start()
    assert ended.result(timeout=240) == "The process that reads the data exited (exit code 1): out of memory"
    with pytest.raises(data_process.ProcessExitedError, match="out of memory"):
        process.request("overview").result(timeout=60)


@pytest.mark.launches
def test_a_process_that_dies_is_told(inspect):
    view = inspect(ROWS)
    view.wait(240)
    os.kill(view._process.pid, signal.SIGKILL)
    until(lambda: "signal 9" in view._note)  # told after the state
    assert view._state == "failed"
    answer = view._process.request("overview")
    assert isinstance(answer, Future)
    with pytest.raises(RuntimeError, match="signal 9"):
        answer.result(timeout=60)


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_rows_from_a_cell_can_be_looked_at(tiny_model_dir):
    view = Inspect({"model_name_or_path": str(tiny_model_dir), "dataset": ROWS})
    try:
        assert view.overview()["examples"] == 5
        assert "Say 0." in "".join(token[0] for turn in view.example(0)["turns"] for token in turn["tokens"])
    finally:
        view.close()


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_the_output_gets_the_counts_when_they_are_known(inspect, monkeypatch):
    shown = []

    class Slot:
        def update(self, bundle, metadata, raw):
            shown.append(bundle)

    def display(bundle, metadata, raw, display_id):
        shown.append(bundle)
        return Slot()

    monkeypatch.setattr("IPython.display.display", display)
    view = inspect(ROWS)
    view._ipython_display_()
    view.wait(240)
    until(lambda: "rows.jsonl" in shown[-1]["text/html"])
    assert all("application/vnd.jupyter.widget-view+json" in bundle for bundle in shown)
    assert "rows.jsonl" in shown[-1]["text/plain"]


def test_what_a_saved_notebook_keeps():
    text = summary_text("ready", "", OVERVIEW).splitlines()
    heads = ["Data set", "Records", "Kept", "Truncated", "Dropped", "Tokens", "In the loss", "In the loss, %"]
    assert text[0].split() == " ".join(heads).split()
    assert text[-1].split() == ["All", "1,010", "1,000", "3", "10", "5,100", "2,510", "49", "%"]
    html = summary_html("ready", "", OVERVIEW)
    assert "&lt;a&gt;" in html
    assert "<a>" not in html
    assert summary_text("failed", "No file.", {}) == "Inspect: No file."
    assert summary_html("failed", "<No>", {}) == "<p>Inspect: &lt;No&gt;</p>"


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_the_form_shows_every_token_below_and_takes_what_is_changed_there(tmp_path, tiny_model_dir):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = {"model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.jsonl"), "cutoff_len": 64}
    studio = Studio(config)
    studio._preview._receive(studio._preview, {"type": "inspect"}, [])
    first = studio.children[2]
    try:
        assert first.overview()["examples"] == 5
        first._receive(first, {"type": "change", "changes": {"cutoff_len": 128}}, [])
        assert studio.config.data.cutoff_len == 128
        second = studio.inspect()
        assert studio.children[2:] == (second,)
        assert second.overview()["cutoff"] == 128
        second.close()
    finally:
        first.close()
    studio.set(cutoff_len=1)
    studio._preview._receive(studio._preview, {"type": "inspect"}, [])
    assert studio._preview._messages[0]["level"] == "error"


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_code_that_comes_with_a_model_is_shown_and_runs_only_when_it_is_allowed(inspect, tiny_model_dir, tmp_path):
    model, mark = tmp_path / "model", tmp_path / "it-ran"
    evil_model(model, tiny_model_dir, mark)
    view = inspect(ROWS, model_name_or_path=str(model), trust_remote_code=True)
    with pytest.raises(RuntimeError, match="you have not allowed it"):
        view.wait(240)
    (code,) = view._code
    assert code["folder"] == str(model)
    assert not mark.exists()
    view._handle_custom_msg({"type": "allow"}, [])
    assert view.wait(240).overview()["examples"] == 5
    assert view._code == []
    assert mark.exists()


@pytest.mark.launches
def test_closing_the_view_ends_the_wait(inspect):
    view = inspect(ROWS)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(view.wait)
        view.close()
        with pytest.raises(RuntimeError, match=r"^The view was closed before the data was prepared\.$"):
            waits.result(timeout=120)
    with pytest.raises(RuntimeError, match="was closed"):
        view.overview()


@pytest.mark.launches
def test_the_counts_of_a_closed_view_stay(inspect):
    view = inspect(ROWS)
    assert view.overview()["examples"] == 5
    view.close()
    assert view.overview()["examples"] == 5
