"""`llf.export` in a notebook: the view over a real export of a tiny run, and what it shows of any receipt."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest

import llf_widgets as llf
from llf_core.chat.target import TargetError
from llf_core.export import ExportError, Receipt, ReceiptCheck, read_receipt
from llf_core.export.receipt import FailedReceiptError
from llf_widgets.export_view import start, widget
from llf_widgets.export_view.widget import STOPPED, ExportView, receipt_json, summary_html, summary_text
from tests.attempts import data_file, make_run, settings, trained

__all__ = ["data_file", "make_run", "settings", "trained"]

EVIL = "<img src=x onerror='window.llfHacked=1'>"
QUANTIZED = Receipt(
    "gguf",
    {},
    (
        ReceiptCheck("logits", passed=True, measured=0.0123, limit=0.3, unit="nats", by="llama.cpp b1"),
        ReceiptCheck(f"stop {EVIL}", passed=False, measured="differs", by="transformers 5", detail="Missing: [2]."),
    ),
    files={"m-f16.gguf": {"bytes": 2_000_000, "sha256": ""}},
    table=(
        {"quantization": "f16", "bytes": 2e6, "kl": 0.0, "perplexity": 12.5, "changed_greedy": 0.0},
        {
            "quantization": EVIL,
            "bytes": 1e6,
            "kl": float("inf"),
            "perplexity": 13,
            "changed_greedy": 0.006,
            "tokens_per_second": 1234.5,
        },
    ),
    seconds=72.0,
)


@pytest.fixture
def view():
    """Makes views, and closes them."""
    views = []

    def made(target, name="adapter", **options):
        views.append(ExportView(target, name, **options))
        return views[-1]

    yield made
    for one in views:
        one.close()


def entries(folder):
    return sorted(one.name for one in folder.iterdir())


@pytest.mark.launches
@pytest.mark.usefixtures("warm_python")
def test_a_run_is_exported_stopped_and_refused(view, trained, tmp_path):
    run, code = trained()
    assert code == 0
    box = tmp_path / "box"
    box.mkdir()

    stopped = view(run, folder=box / "whole", progress=lambda what, *_: "Loading" in what and stopped.stop())
    with pytest.raises(ExportError, match="Stopped"):
        stopped.wait(240)
    assert (stopped._state, stopped._note, stopped._receipt) == ("stopped", STOPPED, {})
    assert entries(box) == []

    seen = []
    made = view(run.id, folder=box / "whole", progress=lambda *progress: seen.append((*progress, made._note)))
    assert made.receipt == read_receipt(box / "whole")
    assert made.folder == box / "whole"
    assert made.wait().folder == made.folder
    assert {f"{what}…" for what, *_ in seen} == {note for *_, note in seen} != set()
    assert (made._state, made._note, made._progress) == ("done", "", [])
    assert made._title == f"Export {run.id} as adapter"
    assert made._receipt["passed"] is True
    assert "logits" in {one["cells"][0] for one in made._receipt["checks"]}
    data, _ = made._repr_mimebundle_()
    assert str(box / "whole") in data["text/plain"]
    assert "checks passed" in data["text/html"]

    again = view(run, folder=box / "whole")
    with pytest.raises(ExportError, match="whole is not empty"):
        again.wait(240)
    assert (again._state, again._repeatable) == ("failed", False)
    assert "Expected a new folder" in again._note
    (box / "whole").rename(tmp_path / "elsewhere")
    again._receive(again, {"type": "again"}, [])
    assert again._state == "running"
    again._receive(again, {"type": "stop"}, [])
    with pytest.raises(ExportError, match="Stopped"):
        again.wait(240)
    assert entries(box) == []


def test_a_stop_before_the_process_starts_ends_the_export(view, monkeypatch, tmp_path):
    views = Queue()

    def export(*_, on_start, **__):
        views.get(timeout=60).stop()
        on_start(lambda: None)

    monkeypatch.setattr(widget, "export", export)
    made = view("run", folder=tmp_path / "x")
    views.put(made)
    with pytest.raises(ExportError, match="Stopped"):
        made.wait(60)


def test_a_receipt_that_failed_is_shown(view, monkeypatch):
    def export(*_, **__):
        raise FailedReceiptError(f"run was not exported. {EVIL}", QUANTIZED)

    monkeypatch.setattr(widget, "export", export)
    made = view("run")
    with pytest.raises(FailedReceiptError):
        made.wait(60)
    assert [one["passed"] for one in made._receipt["checks"]] == [True, False]
    data, _ = made._repr_mimebundle_()
    assert "<img" not in data["text/html"]


def test_a_receipt_becomes_texts():
    shown = receipt_json(QUANTIZED)
    json.dumps(shown, allow_nan=False)
    assert shown["summary"] == (
        "1 of 2 checks failed. 1 file, 2.00 MB. 1:12 in total. Read back by llama.cpp b1; transformers 5."
    )
    assert [one["cells"] for one in shown["checks"]] == [
        ["logits", "passed", "0.0123 nats", "at most 0.3 nats"],
        [f"stop {EVIL}", "failed", "differs", "-"],
    ]
    assert [one["cells"] for one in shown["rows"]] == [
        ["f16", "2.00 MB", "0", "12.50", "0.0 %", "-"],
        [EVIL, "1.00 MB", "infinity", "13.00", "0.6 %", "1,235"],
    ]
    assert shown["bars"] == [{"name": "f16", "bytes": 2e6, "kl": 0.0}, {"name": EVIL, "bytes": 1e6, "kl": None}]
    html = summary_html("Export <a>", "", "/tmp/<b>", shown)
    assert "<img" not in html
    assert "&lt;a&gt;" in html
    assert "&lt;b&gt;" in html
    lines = summary_text("Export run", "", "/tmp/x", shown).splitlines()
    assert lines[:2] == ["Export run", "/tmp/x"]
    assert lines[4] == f"{'logits':<{len(EVIL) + 5}}  passed  0.0123 nats  at most 0.3 nats"
    assert summary_text("Export run", STOPPED, "", {}) == f"Export run: {STOPPED}"


def test_a_notebook_gets_the_view_and_a_script_the_export(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match="folders"):
        llf.export("nothing", folders="x")
    with pytest.raises(TargetError):
        llf.export("nothing")
    monkeypatch.setattr(start, "notebook_location", lambda: {"path": "", "cell": ""})
    shown = llf.export("nothing", format="merged")
    assert isinstance(shown, ExportView)
    with pytest.raises(TargetError):
        shown.wait(120)
    assert "nothing" in shown._note
    shown.close()


@pytest.mark.parametrize("moment", ["starting", "measuring"])
def test_closing_the_view_ends_the_wait(view, tmp_path, monkeypatch, moment):
    """As `export` does: `on_start` gets what ends the process, whose end is an error in the thread."""
    began, ended, closed = threading.Event(), threading.Event(), threading.Event()

    def runs(*_args, on_start, progress, **_options):
        if moment == "measuring":
            on_start(ended.set)
        began.set()
        assert (ended if moment == "measuring" else closed).wait(60)
        progress("Reading", 0, 1)
        raise AssertionError("A closed view goes on.")

    monkeypatch.setattr(widget, "export", runs)
    made = view("model", folder=tmp_path / "out")
    assert began.wait(60)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(made.wait)
        made.close()
        closed.set()
        with pytest.raises(ExportError, match="Stopped"):
            waits.result(timeout=60)


@pytest.mark.parametrize(
    ("error", "began", "offered"),
    [
        (ExportError("`format` is 'gufg'."), False, False),
        (TypeError("7 is not a model."), False, False),
        (ExportError("The process ended."), True, True),
        (OSError(28, "No space left on device"), False, True),
    ],
)
def test_repeating_is_offered_where_it_may_help(view, monkeypatch, error, began, offered):
    def export(*_, on_start, **__):
        if began:
            on_start(lambda: None)
        raise error

    monkeypatch.setattr(widget, "export", export)
    made = view("run")
    with pytest.raises(type(error)):
        made.wait(60)
    assert made._repeatable is offered
