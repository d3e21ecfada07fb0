"""The parts of a run's monitor, as a page without a kernel gets them."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import threading

import numpy as np
import psutil
import pytest

from llf_core.runs import RunWriter
from llf_widgets.home import home_hash
from llf_widgets.monitor.run_view import SECTIONS, RunView
from llf_widgets.server.monitor import MAX_VIEWS
from llf_widgets.view_files import VIEW_MIME_TYPE, script, text


@pytest.fixture
def run(make_run):
    folder = make_run("demo", state="finished")
    writer = RunWriter(folder, 1)
    for step in range(1, 6):
        writer.metric(step, {"loss": 2 - step / 10})
    writer.flush()
    return folder


def losses(part):
    return np.frombuffer(base64.b64decode(part["figure"]["data"][0]["y"]["bdata"]), "<f4")


async def test_a_page_gets_every_part_once(ask, run):
    code, first = await ask("runs", run.id, "monitor")
    assert code == 200
    assert set(first["sections"]) == set(first["revisions"]) == set(SECTIONS)
    assert first["home"] == home_hash()
    assert first["sections"]["head"]["state"] == "finished"
    assert losses(first["sections"]["charts"]) == pytest.approx([1.9, 1.8, 1.7, 1.6, 1.5])
    _, again = await ask("runs", run.id, "monitor", params={"revisions": json.dumps(first["revisions"])})
    assert again["sections"] == {}
    assert again["revisions"] == first["revisions"]


async def test_what_is_logged_comes_with_the_next_question(ask, run):
    _, first = await ask("runs", run.id, "monitor")
    RunWriter(run, 1).metric(6, {"loss": 0.5})
    _, updates = await ask("runs", run.id, "monitor", params={"revisions": json.dumps(first["revisions"])})
    assert set(updates["sections"]) == {"head", "charts"}
    assert losses(updates["sections"]["charts"])[-1] == 0.5


async def test_marks_of_another_server_are_not_taken_for_its_own(ask, run):
    _, first = await ask("runs", run.id, "monitor")
    other = RunView(run).updates({})
    assert set(other["revisions"].values()).isdisjoint(first["revisions"].values())
    _, again = await ask("runs", run.id, "monitor", params={"revisions": json.dumps(other["revisions"])})
    assert set(again["sections"]) == set(SECTIONS)


async def test_two_pages_may_want_different_charts(ask, run):
    _, few = await ask("runs", run.id, "monitor", params={"details": "0"})
    _, all_of_them = await ask(
        "runs", run.id, "monitor", params={"details": "1", "revisions": json.dumps(few["revisions"])}
    )
    assert set(all_of_them["sections"]) == {"charts"}


async def test_nan_reaches_the_page(ask, make_run):
    folder = make_run("odd", state="finished")
    RunWriter(folder, 1).metric(1, {"loss": float("nan")})
    code, answer = await ask("runs", folder.id, "monitor")
    assert code == 200
    assert np.isnan(losses(answer["sections"]["charts"])).all()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"revisions": "{"}, "revisions is not JSON."),
        ({"revisions": "[" * 5000}, "revisions is not JSON."),
        ({"revisions": "[]"}, "revisions is not an object with the keys head, charts"),
        ({"revisions": json.dumps({"head": "x" * 65})}, "revisions is not an object with the keys head, charts"),
        ({"revisions": json.dumps({"secret": "x"})}, "revisions is not an object with the keys head, charts"),
        ({"details": "2"}, "details is '2'. Expected an integer from 0 to 1."),
        ({"older": "51"}, "older is '51'. Expected an integer from 0 to 50."),
        ({"window": "-1"}, "window is '-1'. Expected an integer from 0 to 100000."),
    ],
)
async def test_bad_questions_are_answered_with_a_sentence(ask, run, params, said):
    code, answer = await ask("runs", run.id, "monitor", params=params)
    assert code == 400
    assert answer["message"].startswith(said)


@pytest.mark.parametrize("route", ["monitor", "summary"])
async def test_runs_that_are_none_are_not_found(ask, run, route):
    for run_id in ("20261124-142530-none", "..", "%2e%2e%2fetc"):
        assert (await ask("runs", run_id, route))[0] == 404


async def test_a_broken_run_says_so(ask, run):
    run.status.write_text("{")
    _, answer = await ask("runs", run.id, "monitor")
    assert answer["sections"]["head"]["state"] == "broken"


async def test_a_run_that_took_the_place_of_another_is_read_anew(ask, run, make_run):
    await ask("runs", run.id, "monitor")
    run.path.rename(run.path.with_name("moved-away"))
    run.path.with_name("moved-away").joinpath("meta.json").read_text()
    other = make_run("other", state="finished")
    RunWriter(other, 1).metric(1, {"loss": 7.0})
    other.path.rename(run.path)
    _, answer = await ask("runs", run.id, "monitor")
    assert losses(answer["sections"]["charts"]).tolist() == [7.0]


async def test_the_summary_is_what_a_saved_notebook_keeps(ask, run):
    code, answer = await ask("runs", run.id, "summary")
    assert code == 200
    assert set(answer["data"]) == {VIEW_MIME_TYPE, "text/html", "text/plain", "image/png"}
    assert answer["data"]["text/plain"].startswith("demo: finished.")


async def test_the_front_end_comes_once(ask, jp_fetch):
    response = await jp_fetch("llf", "api", "monitor")
    found = json.loads(response.body)
    assert set(found) == {"module", "css"}
    assert found["module"] == text(script("monitor"))
    assert "render" in found["module"]
    tag = response.headers["ETag"]
    again = await jp_fetch("llf", "api", "monitor", headers={"If-None-Match": tag}, raise_error=False)
    assert (again.code, again.body) == (304, b"")


async def test_older_answers_are_sent_when_they_are_asked_for(ask, run):
    writer = RunWriter(run, 1)
    for step in range(1, 31):
        writer.sample(step=step, kind="answer", prompt="Hi?", text=f"{step}!", of="tuned")
    _, newest = await ask("runs", run.id, "monitor")
    (row,) = newest["sections"]["answers"]
    assert (row["steps"][0], row["steps"][-1], row["older"]) == (11, 30, 10)
    known = json.dumps(newest["revisions"])
    _, more = await ask("runs", run.id, "monitor", params={"revisions": known, "older": "1"})
    (row,) = more["sections"]["answers"]
    assert (row["steps"][0], row["texts"][0], row["older"]) == (1, "1!", 0)


POOL = 40
"""Threads that an event loop makes at most, and a few of others."""


async def test_many_pages_that_look_at_more_runs_than_are_kept_leave_nothing_open(ask, make_run):
    folders = [make_run(f"run-{n}", state="finished") for n in range(MAX_VIEWS + 4)]
    for folder in folders:
        write(folder, 3)
    process, turn = psutil.Process(), random.Random(7)

    async def page(number, questions):
        """Looks at one run after the other, as a reader with many tabs does."""
        for _ in range(questions):
            place = turn.randrange(len(folders))
            folder = folders[place]
            if number == 0:  # while others look at it
                shutil.rmtree(folder.path)
                new = make_run(f"new-{place}", state="finished")
                write(new, 5)
                new.path.rename(folder.path)
            code, answer = await ask("runs", folder.id, "monitor")
            assert code in {200, 404}, answer
            if code == 200 and number:
                assert answer["sections"]["head"]["id"] == folder.id

    await asyncio.gather(*(page(number, 2) for number in range(10)))
    descriptors, before = process.num_fds(), set(threading.enumerate())
    await asyncio.gather(*(page(number, 5) for number in range(50)))
    for _ in range(600):
        if process.num_fds() > descriptors + 5:
            await asyncio.sleep(0.05)  # connections that are being closed
    assert process.num_fds() <= descriptors + 5
    now = threading.enumerate()
    assert sum(one.name.startswith("llf-") for one in now) <= POOL
    assert [one.name for one in now if one not in before and not one.name.startswith(("llf-", "asyncio_"))] == []
    for folder in folders:
        _, answer = await ask("runs", folder.id, "monitor")
        assert answer["sections"]["head"]["state"] == "finished"
        assert len(losses(answer["sections"]["charts"])) in {3, 5}


def write(folder, steps):
    writer = RunWriter(folder, 1)
    for step in range(1, steps + 1):
        writer.metric(step, {"loss": 2 - step / 10})
    writer.close("finished")
