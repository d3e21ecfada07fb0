"""Folders that are broken, half-written or gone while they are looked at: no wrong state, and no other run suffers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from tornado.httpclient import HTTPClientError

from llf_core import runs
from llf_widgets.monitor.run_view import RunView
from llf_widgets.server import handler
from llf_widgets.server import runs as runs_module
from llf_widgets.server.handler import RunsAPIHandler

JUNK = {
    "empty": "",
    "torn": '{"format": 1, "state": "runn',
    "no object": "[]",
    "nothing": "null",
    "deep": "[" * 100_000,
    "not finite": '{"format": 1, "state": "running", "heartbeat": 1e999, "step_seconds": NaN, "created": -1e999}',
    "spelled": '{"format": 1, "state": "running", "heartbeat": "NaN", "step_seconds": "Infinity", "total": 5}',
    "huge": '{"format": 1, "state": "running", "step": 7, "total": 9, "step_seconds": 1' + "0" * 400 + "}",
    "odd kinds": '{"name": 3, "tags": [{"a": NaN}, null], "note": [], "revision": NaN, "packages": "x", "git": [1]}',
    "later format": '{"format": 2, "state": "running"}',
    "bytes": "\udcff\udcfe\udc80{",
    "a folder": None,
}
FILES = ("status", "meta", "config", "env", "metrics", "events", "samples", "log", "queue", "checkpoints")


def no_constant(word):
    raise ValueError(f"{word} is no JSON")


@pytest.fixture
def strict(jp_fetch):
    """Asks as a browser does: what is no JSON for it is an error."""

    async def inner(*parts, **params):
        response = await jp_fetch("llf", "api", *parts, params=params)
        return json.loads(response.body, parse_constant=no_constant)

    return inner


def spoil(path, junk):
    """Puts junk in a file's place; returns what brings the file back."""
    kept = path.with_name(f"{path.name}.kept")
    with suppress(FileNotFoundError):
        path.rename(kept)
    if junk is None:
        path.mkdir()
    else:
        path.write_bytes(junk.encode("utf-8", "surrogateescape"))

    def mend():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if kept.exists():
            kept.rename(path)

    return mend


@pytest.mark.parametrize("junk", JUNK)
async def test_no_file_of_a_run_spoils_the_list(strict, make_run, junk):
    whole, spoilt = make_run("whole", state="finished"), make_run("spoilt", state="stopped", step=3, total=9)
    writer = runs.RunWriter(spoilt)
    writer.metric(1, {"loss": 2.0})
    writer.event("warning", message="Told once.")
    before = await strict("runs", spoilt.id, details="1")
    for name in FILES:
        mend = spoil(getattr(spoilt, name), JUNK[junk])
        rows = {row["id"]: row for row in (await strict("runs"))["runs"]}
        assert rows[whole.id]["state"] == "finished", name
        assert spoilt.id in rows, name
        one = await strict("runs", spoilt.id, details="1")
        assert one["id"] == spoilt.id
        if one["status"]["state"] == "broken":
            assert one["status"]["reason"], name
        assert one["status"]["state"] == rows[spoilt.id]["state"], name
        mend()
        assert await strict("runs", spoilt.id, details="1") == before, name


@pytest.mark.parametrize("special", ["pipe", "device"])
async def test_what_cannot_be_read_to_its_end_stops_no_list(ask, make_run, special):
    whole, spoilt = make_run("whole", state="finished"), make_run("spoilt", state="finished")
    for name in FILES[:-1]:
        path = getattr(spoilt, name)
        kept = path.with_name("kept")
        with suppress(FileNotFoundError):
            path.rename(kept)
        os.mkfifo(path) if special == "pipe" else path.symlink_to("/dev/zero")
        code, answer = await asyncio.wait_for(ask("runs"), 60)
        rows = {row["id"]: row for row in answer["runs"]}
        assert (code, rows[whole.id]["state"], rows[spoilt.id]["state"]) == (200, "finished", "broken")
        said = f"{path.name} of the run is not a regular file. Remove it or the run."
        assert rows[spoilt.id]["reason"] == said.replace(" of the run", "")
        code, answer = await asyncio.wait_for(ask("runs", spoilt.id, params={"details": "1"}), 60)
        assert (code, answer) == (409, {"message": said})
        path.unlink()
        with suppress(FileNotFoundError):
            kept.rename(path)
    os.mkfifo(spoilt.events.with_name("pipe"))
    assert (await asyncio.wait_for(ask("runs", spoilt.id, "bin", body={}), 60))[0] == 200
    assert (await asyncio.wait_for(ask("bin"), 60))[1]["runs"][0]["state"] == "broken"


async def test_a_folder_that_nobody_may_read_spoils_no_list(strict, make_run, monkeypatch):
    whole, other = make_run("whole", state="finished"), make_run("other", state="finished")
    opened = os.open

    def refused(path, *args, **options):
        if Path(path).parent == other.path:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(os, "open", refused)
    rows = {row["id"]: row for row in (await strict("runs"))["runs"]}
    assert (rows[whole.id]["state"], rows[other.id]["state"]) == ("finished", "broken")
    assert "Permission denied" in rows[other.id]["reason"]
    assert (await strict("runs", other.id, details="1"))["row"]["state"] == "broken"


async def test_a_folder_that_goes_while_it_is_looked_at(ask, make_run, monkeypatch):
    from llf_core.runs import Checkpoints

    folder, other = make_run("going", state="stopped"), make_run("other", state="finished")
    gone = {"message": f"No run {folder.id} in the LLF_HOME of the server."}
    listed = Checkpoints.list

    def list_of_what_is_removed(self):
        shutil.rmtree(folder.path)
        return listed(self)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Checkpoints, "list", list_of_what_is_removed)
        code, answer = await ask("runs", folder.id, params={"details": "1"})
    assert (code, answer["id"]) == (200, folder.id)
    assert await ask("runs", folder.id, params={"details": "1"}) == (404, gone)
    assert [row["id"] for row in (await ask("runs"))[1]["runs"]] == [other.id]
    for route, body in (("control", {"type": "stop"}), ("bin", {})):
        assert await ask("runs", folder.id, route, body=body) == (404, gone)


@pytest.mark.parametrize(
    ("route", "options"),
    [
        ("bin", {"body": {}}),
        ("control", {"body": {"type": "stop"}}),
        ("control", {"body": {"type": "kill"}}),
        ("meta", {"method": "PATCH", "body": '{"revision": 1, "name": "x"}'}),
        ("output.zip", {}),
        ("", {"params": {"details": "1"}}),
    ],
)
async def test_a_folder_that_goes_at_that_very_moment_is_a_sentence(
    jp_fetch, make_run, live_process, monkeypatch, route, options
):
    folder = make_run("going", state="running", **live_process)
    find = RunsAPIHandler.find_run

    async def find_and_lose(self, run_id, **options):
        found = await find(self, run_id, **options)
        shutil.rmtree(found.path)
        return found

    monkeypatch.setattr(RunsAPIHandler, "find_run", find_and_lose)
    if isinstance(options.get("body"), dict):
        options = {"method": "POST", "body": json.dumps(options["body"])}
    try:
        response = await jp_fetch("llf", "api", "runs", folder.id, *filter(None, [route]), **options)
        assert json.loads(response.body)["status"]["state"] == "broken"
    except HTTPClientError as error:
        said = json.loads(error.response.body)["message"]  # one of two good ends
        assert error.code in {404, 409}  # noqa: PT017
        assert said.endswith(".")


async def test_another_run_of_the_same_id_is_read_from_its_beginning(ask, make_run):
    folder = make_run("one", state="stopped")
    runs.RunWriter(folder).event("warning", message="Of the first.")
    await ask("runs", folder.id, params={"details": "1"})
    folder.path.rename(folder.path.with_name("kept"))
    shutil.copytree(folder.path.with_name("kept"), folder.path)
    folder.events.write_text("")
    runs.RunWriter(folder).event("warning", message="Of the second.")
    _, answer = await ask("runs", folder.id, params={"details": "1"})
    assert [event["message"] for event in answer["events"]] == ["Of the second."]


async def test_two_that_stop_one_run(ask, make_run, live_process):
    folder = make_run("live", state="running", **live_process)
    first, second = [await ask("runs", folder.id, "control", body={"type": "stop"}) for _ in range(2)]
    assert (first[0], second[0]) == (202, 202)
    assert len(list(folder.control.iterdir())) == 2  # the trainer answers both
    runs.RunWriter(folder).close("stopped", "Stopped at step 3 of 9 with checkpoint-3.")
    said = {"message": "The run is stopped, so it cannot handle the request."}
    assert await ask("runs", folder.id, "control", body={"type": "stop"}) == (409, said)


HOUR = 3600


@pytest.mark.parametrize("shift", [HOUR, -HOUR])
async def test_a_clock_that_was_set_changes_no_state(strict, make_run, live_process, shift):
    """The processes live, whatever the clock says; what is left is the trainer's own measure."""
    then = time.time() + shift
    folder = make_run(
        "live", state="running", step=3, total=9, step_seconds=2.0, heartbeat=then, created=then, **live_process
    )
    lines = [{"step": step, "time": then - step * HOUR, "values": {"loss": 3.0 - step}} for step in (1, 2, 3)]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = (await strict("runs"))["runs"]
    assert (row["state"], row["remaining"], row["loss"]) == ("running", 12.0, 0.0)
    one = await strict("runs", folder.id, details="1")
    assert (one["status"]["state"], one["chart"]["lines"]["loss"]) == ("running", [[1, 2, 3], [2.0, 1.0, 0.0]])


async def test_a_run_of_another_machine_whose_clock_is_ahead_is_not_lost(strict, make_run):
    make_run("elsewhere", state="running", host="elsewhere", heartbeat=time.time() + HOUR)
    assert (await strict("runs"))["runs"][0]["state"] == "running"


async def test_a_run_that_takes_long_to_read_holds_up_no_other(ask, make_run, monkeypatch):
    slow, other = make_run("slow", state="finished"), make_run("other", state="finished")
    go_on, first, begun = threading.Event(), threading.Event(), []

    def updates(self, have, options):
        begun.append(self)
        first.set()
        assert go_on.wait(30)
        return {"now": 0, "revisions": {}, "sections": {}}

    monkeypatch.setattr(RunView, "updates", updates)
    monkeypatch.setattr(handler, "FILE_THREADS", ThreadPoolExecutor(2))
    asking = [asyncio.create_task(ask("runs", slow.id, "monitor")) for _ in range(5)]
    try:
        assert await asyncio.to_thread(first.wait, 30)
        code, _ = await asyncio.wait_for(ask("runs", other.id), 60)
        assert (code, len(begun)) == (200, 1)
    finally:
        go_on.set()
    assert [code for code, _ in await asyncio.gather(*asking)] == [200] * 5


async def test_what_takes_minutes_holds_up_no_look(ask, make_run, monkeypatch):
    live, other = make_run("live", state="running", host="elsewhere", heartbeat=9e9), make_run("other")
    go_on, begun = threading.Event(), threading.Event()

    def kill_run(*_):
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(runs_module, "kill_run", kill_run)
    monkeypatch.setattr(handler, "FILE_THREADS", ThreadPoolExecutor(1))
    asking = asyncio.create_task(ask("runs", live.id, "control", body={"type": "kill"}))
    try:
        assert await asyncio.to_thread(begun.wait, 60)
        assert (await asyncio.wait_for(ask("runs", other.id), 60))[0] == 200
    finally:
        go_on.set()
    assert (await asking)[0] == 202


async def test_a_refusal_says_why(ask, make_run):
    code, answer = await ask("runs", method="PUT", allow_nonstandard_methods=True)
    assert (code, answer["message"]) == (405, "This address does not accept this HTTP method.")
    code, answer = await ask("runs", params={"sort": "x" * 5000})
    assert code == 400
    assert len(answer["message"]) < 200


async def test_a_home_of_nobody(ask, monkeypatch):
    monkeypatch.setenv("LLF_HOME", "~nobody-has-this-name/llf")
    message = "The home folder in ~nobody-has-this-name/llf is unknown. Set LLF_HOME to an absolute path."
    assert await ask("runs") == (409, {"message": message})
    assert await ask("runs", "some-id") == (409, {"message": message})
    assert await ask("version") == (409, {"message": message})
    assert await ask("bin") == (409, {"message": message})


async def test_a_folder_of_runs_that_leads_nowhere(ask, llf_home):
    llf_home.mkdir(exist_ok=True)
    (llf_home / "runs").symlink_to("runs")
    told = 409, {"message": "The runs cannot be listed: Too many levels of symbolic links."}
    assert await ask("runs", params={"query": "x"}) == told
    assert await ask("runs") == told  # from the index, without a scan
    assert await ask("adapters") == told
