"""Whatever stands in the place of a run's file: every route answers at once with a sentence, and the server lives."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time

import psutil
import pytest

from llf_core import runs
from tests.odd_files import FILES, ODD, put

LONGEST, HUNG = 10.0, 100.0
LARGEST = 500 << 20
ROUTES = (
    ("runs",),
    ("runs", "ID"),
    ("runs", "ID", {"details": "1"}),
    ("runs", "ID", "monitor", {"details": "1"}),
    ("runs", "ID", "summary"),
    ("runs", "ID", "code"),
    ("adapters",),
    ("bin",),
)
FEW = (
    ("status.json", "pipe"),
    ("status.json", "huge"),
    ("status.lock", "loop"),
    ("meta.json", "socket"),
    ("env.json", "bomb"),
    ("config.yaml", "bomb"),
    ("config.yaml", "link out"),
    ("metrics.jsonl", "huge"),
    ("events.jsonl", "huge"),
    ("events.jsonl", "link in"),
    ("samples.jsonl", "folder"),
    ("log.txt", "link out"),
    ("control", "link to a folder"),
    ("control/1-a.json", "pipe"),
    ("checkpoints", "link to a folder"),
    ("checkpoints/checkpoint-3/complete.json", "pipe"),
    ("output", "loop"),
    ("output/adapter_config.json", "link to a device"),
)


def spoilt(make_run, live_process, name, kind):
    """A whole run, and one with something odd in it."""
    whole = make_run("whole", state="finished")
    folder = make_run("spoilt", state="finished" if name.startswith("output") else "running", **live_process)
    writer = runs.RunWriter(folder)
    writer.metric(1, {"loss": 2.0})
    writer.event("warning", message="Told once.")
    own = runs.Checkpoints(folder)
    own.path(3).mkdir(parents=True)
    (own.path(3) / "weights").write_bytes(b"x")
    own.finish(3)
    folder.output.mkdir()
    folder.log.write_text("a line\n")
    put(folder, name, kind)
    return whole, folder


async def check(ask, whole, folder):
    async def asked(*parts, **options):
        began = time.process_time()  # the server's too: a busy machine is not what is measured
        code, answer = await asyncio.wait_for(ask(*parts, **options), HUNG)
        assert time.process_time() - began < LONGEST, parts
        assert code in {200, 202, 404, 409}, (parts, code, answer)
        if code >= 400:
            assert answer["message"].endswith("."), answer
            assert str(folder.home) not in answer["message"], answer
        return code, answer

    for *parts, options in [route if isinstance(route[-1], dict) else (*route, {}) for route in ROUTES]:
        _, answer = await asked(*(folder.id if part == "ID" else part for part in parts), params=options)
        text = json.dumps(answer)
        assert "root:x:0" not in text, parts
        if parts == ["runs"]:
            rows = {row["id"]: row for row in answer["runs"]}
            assert rows[whole.id]["state"] == "finished"
            assert rows[folder.id]["state"] != "broken" or rows[folder.id]["reason"]
    await asked("runs", folder.id, "control", body={"type": "stop"})
    await asked("runs", folder.id, "meta", method="PATCH", body=json.dumps({"revision": 1, "name": "x"}).encode())
    assert (await asked("runs", folder.id, "bin", body={}))[0] in {200, 409}


@pytest.mark.parametrize(("name", "kind"), FEW)
async def test_odd_files_stop_no_route(ask, make_run, live_process, name, kind):
    await check(ask, *spoilt(make_run, live_process, name, kind))


@pytest.mark.long
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", FILES)
async def test_anything_in_the_place_of_any_file_stops_no_route(ask, make_run, live_process, name, kind):
    before = psutil.Process().memory_info().rss
    await check(ask, *spoilt(make_run, live_process, name, kind))
    assert psutil.Process().memory_info().rss - before < LARGEST


async def test_odd_entries_beside_the_runs_are_listed_with_the_reason(ask, make_run, llf_home, tmp_path):
    whole = make_run("whole", state="finished")
    place = os.fsencode(llf_home / "runs")
    (llf_home / "runs" / "loop").symlink_to("loop")
    (llf_home / "runs" / "outside").symlink_to("/etc")
    os.mkfifo(place + b"/pipe")
    os.mkdir(place + b"/caf\xe9")  # noqa: PTH102 - no text in UTF-8
    (llf_home / "runs" / "Upper Case").mkdir()
    (llf_home / "runs" / "notes.txt").write_text("mine")
    (llf_home / "runs" / ".hidden").mkdir()
    for sort in ("newest", "name", "loss"):
        _, answer = await ask("runs", params={"sort": sort})
        assert answer["total"] == 7
        assert answer["runs"][0]["id"] == whole.id
        odd = {row["id"]: row["reason"].partition(".")[0] for row in answer["runs"][1:]}
        assert odd == {
            "loop": "This is a link",
            "outside": "This is a link",
            "pipe": "This is a file",
            "notes.txt": "This is a file",
            "caf\\xe9": "This is not a run: its name is not a run id",
            "Upper Case": "This is not a run: its name is not a run id",
        }
    assert (await ask("runs", params={"state": "broken"}))[1]["total"] == 6
    assert (await ask("runs", params={"limit": "3", "offset": "5"}))[1]["total"] == 7
    assert (await ask("adapters"))[1]["total"] == 0


async def test_a_disk_that_hangs_keeps_neither_the_server_nor_other_requests(ask, make_run, monkeypatch):
    from llf_widgets.server import handler
    from llf_widgets.server import runs as routes

    whole, stuck = make_run("whole", state="finished"), make_run("stuck", state="finished")
    read_run, run_in_thread = routes.read_run, handler.RunsAPIHandler.run_in_thread
    begun, released = threading.Event(), threading.Event()

    def read(folder):
        if folder.id != stuck.id:
            return read_run(folder)
        begun.set()
        return released.wait(60)

    async def impatient(self, work, *arguments, **options):
        hangs = work is read and arguments[0].id == stuck.id
        return await run_in_thread(self, work, *arguments, **options | ({"max_seconds": 0.5} if hangs else {}))

    monkeypatch.setattr(routes, "read_run", read)
    monkeypatch.setattr(handler.RunsAPIHandler, "run_in_thread", impatient)
    waiting = asyncio.ensure_future(ask("runs", stuck.id))
    try:
        assert await asyncio.to_thread(begun.wait, 60)
        assert (await ask("runs", whole.id))[0] == 200
        code, answer = await waiting
    finally:
        released.set()
    assert code == 503
    assert (
        answer["message"] == "The files could not be read within 0 s. Check that the disk is available, then try again."
    )
