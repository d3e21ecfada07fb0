"""`llf.Examples` over a real run and the real process that reads its data."""

import gc
import json
import sys
import threading
import time
from concurrent.futures import Future

import pytest

from llf_widgets.compare import Compare
from llf_widgets.evaluation import Evaluate
from llf_widgets.examples import Examples
from llf_widgets.inspect import Inspect
from llf_widgets.monitor import Monitor
from tests.attempts import data_file, make_run, settings, trained
from tests.hostile import evil_run

__all__ = ["data_file", "make_run", "settings", "trained"]


@pytest.fixture
def folder(trained):
    folder, code = trained(max_steps=None, num_train_epochs=2.0, save_strategy="no")
    assert code == 0
    return folder


@pytest.fixture
def view(folder):
    view = Examples(folder)
    yield view
    view.close()


def until(condition, seconds=240):
    """Waits for another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def texts(view):
    return ["".join(text for text, _ in row["segments"]) for row in view._page["rows"]]


@pytest.mark.launches
def test_a_page_has_losses_at_once_and_texts_when_they_are_read(view, data_file):
    assert view._page["total"] == 24
    assert len(view._page["rows"]) == 10
    until(lambda: "segments" in view._page["rows"][0])
    row, rows = view._page["rows"][0], json.loads(data_file.read_text())
    assert rows[row["record"]]["instruction"] in texts(view)[0]
    assert rows[row["record"]]["output"] in "".join(text for text, trained in row["segments"] if trained)
    excess = [row["excess"] for row in view._page["rows"]]
    assert excess == sorted(excess, reverse=True)

    step = view.at(3)
    assert len(step) == 4
    assert view._page["query"] == {"step": 3, "offset": 0}
    until(lambda: "segments" in view._page["rows"][0])

    view._handle_custom_msg({"kind": "hardest", "offset": 20}, [])
    assert len(view._page["rows"]) == 4
    view._handle_custom_msg({"kind": "<b>", "offset": "x"}, [])
    view._handle_custom_msg("hardest", [])
    assert view._page["query"] == {"kind": "hardest", "offset": 20}


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_data_that_is_not_what_it_was_is_told(folder, data_file):
    data_file.write_text(json.dumps([{"instruction": "Only one.", "output": "It is."}]))
    view = Examples(folder)
    until(lambda: view._note.startswith("The data of this run has changed since"))
    view.close()
    data_file.unlink()
    view = Examples(folder)
    until(lambda: view._note and "Reading" not in view._note)
    assert str(data_file) in view._note or "sums.json" in view._note
    view.close()


def test_texts_that_arrive_while_a_reader_turns_the_page_stay_on_theirs(make_run):
    class Query(dict):
        def __ne__(self, other):
            found = dict(self) != other
            turning.start()
            turning.join(0.5)  # between the look at the page and its change
            return found

        __hash__ = None

    view = Examples(make_run())
    turning = threading.Thread(target=view.show, args=("odd",))
    query, answer = Query(kind="hardest", offset=0), Future()
    view._page = {"total": 1, "rows": [{"number": 3}], "seen": 1, "query": query}
    answer.set_result([{"number": 3, "segments": []}])
    view._show_texts(answer, [{"number": 3}], dict(query))
    turning.join()
    assert view._page == {"total": 0, "rows": [], "seen": 0, "query": {"kind": "odd", "offset": 0}}
    view.close()


def test_a_negative_number_skips_and_takes_nothing(make_run):
    folder = make_run()
    record = {"step": 1, "attempt": 1, "number": list(range(12)), "loss": list(range(12)), "tokens": [3] * 12}
    view = Examples(folder)
    view._code = [{"path": "tokenizer.py"}]  # so that no process reads the texts
    folder.examples.write_text(json.dumps(record) + "\n")
    view.show("hardest", -3)
    assert [row["number"] for row in view._page["rows"]] == [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]
    assert view.outliers(limit=-1) == []
    assert [one["number"] for one in view.outliers(limit=2)] == [11, 10]
    view.show_step(1, -3)
    assert [row["number"] for row in view._page["rows"]] == [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]
    view.close()


def test_a_run_without_losses_says_so(make_run):
    view = Examples(make_run())
    assert view._page == {"total": 0, "rows": [], "seen": 0, "query": {"kind": "hardest", "offset": 0}}
    assert view.at(5) == []
    assert view._process is None
    view.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Examples("20200101-000000-none"),
        lambda: Inspect({"dataset": "llf_demo", "cutoff_len": -1}),
        lambda: Evaluate([]),
        lambda: Compare(["20200101-000000-none"]),
    ],
    ids=["Examples", "Inspect", "Evaluate", "Compare"],
)
@pytest.mark.usefixtures("llf_home")
def test_a_view_that_cannot_be_made_says_so_once(make, monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with pytest.raises((ValueError, FileNotFoundError)):
        make()
    gc.collect()
    assert said == []


def test_losses_that_cannot_be_read_any_more_are_told(make_run):
    folder = make_run()
    view = Examples(folder)
    folder.examples.mkdir()
    view._handle_custom_msg({"kind": "odd"}, [])
    assert "examples.jsonl" in view._note
    view.close()


def test_a_point_of_the_curve_leads_to_its_rows(folder):
    monitor = Monitor(folder)
    for args in ({"step": 4}, {"step": "all"}, {}):
        monitor._view._handle_custom_msg({"type": "examples", "args": args, "key": "k"}, [])
        assert monitor._examples._page["query"] == {"step": 4, "offset": 0}
    assert monitor._examples in monitor.children
    monitor.close()


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_a_tokenizer_that_brings_code_is_shown_and_runs_only_when_it_is_allowed(tiny_model_dir, tmp_path):
    mark = tmp_path / "it-ran"
    view = Examples(evil_run(tiny_model_dir, mark))
    until(lambda: "Examples are listed by index" in view._note)  # told after the code
    assert [row["number"] for row in view._page["rows"]]
    (code,) = view._code
    assert "evil.py" in [file["name"] for file in code["files"]]
    view.show_step(2)
    assert view._process is None
    assert not mark.exists()
    view._handle_custom_msg({"type": "allow"}, [])
    until(lambda: any("segments" in row for row in view._page["rows"]))
    assert view._code == []
    assert mark.exists()
    view.close()
