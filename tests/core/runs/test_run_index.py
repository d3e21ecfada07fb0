"""Lists of very many runs: what is known answers at once, and only what has changed is read."""

import json
import threading
import time

import pytest

from llf_core.runs import RunWriter, create_run, delete_run, listing, run_index, status, update_meta
from llf_core.runs.listing import read_row
from llf_core.runs.run_index import QueryCancelledError, RunIndex, RunQuery


def make(count):
    folders = [create_run(f"stage: sft\nmodel_name_or_path: m{number}\n", f"run {number}") for number in range(count)]
    for folder in folders:
        status.update(folder, state="finished")
    return folders


@pytest.fixture(autouse=True)
def every_search_scans(monkeypatch):
    """A scan of few runs is cheap on the slowest machine, and in the first test, which imports what it needs, too."""
    monkeypatch.setattr(run_index, "CHEAP_SCAN_SECONDS", 100.0)


def names(page):
    return [row.name for row in page.rows]


@pytest.fixture
def read(monkeypatch):
    """The ids of the runs that were read."""
    found = []
    monkeypatch.setattr(listing, "read_row", lambda folder, **how: found.append(folder.id) or read_row(folder, **how))
    return found


def test_a_page_of_the_newest_reads_the_runs_of_that_page_alone(read):
    folders = make(6)
    page = RunIndex().cached_page(1, 2, RunQuery())
    assert (page.total, names(page), page.reading) == (6, ["run 4", "run 3"], None)
    assert read == [folders[4].id, folders[3].id]
    assert names(RunIndex().page(4, 5, sort="oldest")) == ["run 4", "run 5"]


def test_a_search_answers_by_what_is_known_and_tells_how_much_that_is(monkeypatch):
    make(5)
    go_on, three = threading.Event(), threading.Event()
    seen = []

    def slow(folder, **how):
        if not how.get("curve", True):
            if len(seen) == 3:
                three.set()
                assert go_on.wait(120)
            seen.append(folder.id)
        return read_row(folder, **how)

    monkeypatch.setattr(listing, "read_row", slow)
    index = RunIndex()
    assert not index.scan_started
    look = index.refresh()
    assert three.wait(120)
    assert index.scan_started
    assert index.refresh() is look
    page = index.cached_page(0, 10, RunQuery(query="run"))
    assert (page.total, names(page), page.reading) == (3, ["run 4", "run 3", "run 2"], (3, 5))
    assert json.loads(page.text()) == page.json()
    assert page.json()["reading"] == {"done": 3, "of": 5}
    go_on.set()
    look.result(120)
    page = index.cached_page(0, 10, RunQuery(query="run"))
    assert (page.total, page.reading) == (5, None)
    assert json.loads(page.text()) == page.json()


def test_a_search_once_more_reads_nothing_and_looks_at_no_text(read, monkeypatch):
    make(4)
    index = RunIndex()
    first = index.page(query="run 2")
    read.clear()
    asked = RunQuery(query="RUN 2 2")
    monkeypatch.setattr(asked.search, "finds", lambda *_: pytest.fail("was looked for again"))
    assert index.cached_page(0, 50, asked) == first
    assert read == []


def test_what_changes_is_found_at_the_next_search():
    folders = make(4)
    index = RunIndex()
    assert names(index.page(query="m2")) == ["run 2"]
    update_meta(folders[1], note="like m2")
    assert names(index.page(query="m2")) == ["run 2", "run 1"]
    meta = json.loads(folders[3].meta.read_text())
    folders[3].meta.write_text(json.dumps(meta | {"tags": ["m2"]}))  # in place
    assert names(index.page(query="m2")) == ["run 3", "run 2", "run 1"]
    delete_run(folders[2].id)
    assert names(index.page(query="m2")) == ["run 3", "run 1"]
    status.begin_attempt(folders[3], 2)
    assert names(index.page(state="finished")) == ["run 1", "run 0"]


def test_the_order_of_losses_follows_the_losses():
    folders = make(3)
    index = RunIndex()
    assert names(index.page(sort="loss")) == ["run 2", "run 1", "run 0"]
    for folder, loss in zip(folders, (0.2, 0.3, 0.1), strict=True):
        RunWriter(folder).metric(1, {"loss": loss})
        update_meta(folder, note="trained")
    assert names(index.page(sort="loss")) == ["run 2", "run 0", "run 1"]
    assert names(index.page(sort="name")) == ["run 0", "run 1", "run 2"]


def test_looking_again_takes_a_share_of_a_core_and_no_more(monkeypatch):
    folders = make(2)
    index = RunIndex()
    index.page(query="run")
    index._cost = 1000.0  # as if there were very many
    update_meta(folders[0], name="another")
    assert index.page(query="another").total == 0
    index._scanned_at = time.monotonic() - 1e6
    assert index.page(query="another").total == 1
    index._cost = 1000.0
    update_meta(folders[0], name="third")
    assert names(index.page()) == ["run 1", "third"]  # what is shown is never old
    assert index.page(query="third").total == 1  # and is known from then on


def test_work_ends_where_nobody_waits_for_it(read):
    make(3)
    index = RunIndex()
    index.page(query="run")
    read.clear()
    with pytest.raises(QueryCancelledError):
        index.page(query="ru", is_cancelled=lambda: True)
    with pytest.raises(QueryCancelledError):
        RunIndex().page(is_cancelled=lambda: True)
    assert read == []


def test_no_lock_is_held_while_a_file_is_read(monkeypatch):
    make(2)
    index = RunIndex()
    free = []

    def look(folder, **how):
        free.append(index._lock.acquire(blocking=False))
        index._lock.release()
        return read_row(folder, **how)

    monkeypatch.setattr(listing, "read_row", look)
    assert index.page(query="run").total == 2
    assert free == [True] * 4


def test_what_goes_wrong_in_a_look_is_told_to_who_waits(monkeypatch):
    make(1)

    def fail(folder, **how):
        raise OSError("the disk is gone")

    index = RunIndex()
    with monkeypatch.context() as patch:
        patch.setattr(listing, "read_row", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            index.refresh().result(120)
    assert index.page(query="run").total == 1


def test_a_look_that_failed_is_not_made_again_at_once(monkeypatch):
    make(1)
    looks = []

    def fail(folder, **how):
        looks.append(folder.id)
        raise OSError("the disk is gone")

    monkeypatch.setattr(run_index, "CHEAP_SCAN_SECONDS", -1.0)
    monkeypatch.setattr(run_index, "MAX_CPU_SHARE", 1e-9)  # a look of a microsecond is valid for 1000 seconds
    index = RunIndex()
    with monkeypatch.context() as patch:
        patch.setattr(listing, "read_row", fail)
        for _ in range(3):
            with pytest.raises(OSError, match="the disk is gone"):
                index.page(query="run")
        assert len(looks) == 1
        index._scanned_at -= 1e15
        assert not index.scan_started
    assert index.page(query="run").total == 1
    assert index.scan_started


def test_only_finished_runs_with_a_result_have_one(tmp_path):
    first, second, third = make(3)
    for folder in (first, second):
        folder.output.mkdir()
    index = RunIndex()
    index.refresh(at_once=True)
    assert index.finished() == [second.id, first.id]
    second.output.rmdir()
    status.begin_attempt(first, 2)
    third.output.mkdir()
    index.refresh(at_once=True)
    assert index.finished() == [third.id]


def test_a_run_that_is_gone_leaves_no_entry():
    first, _ = make(2)
    index = RunIndex()
    assert len(index.names()) == 2
    assert index.row("gone").state == "broken"
    index.row(first.id)
    assert index.cached_page(0, 9, RunQuery(query="run")).reading == (1, 2)
