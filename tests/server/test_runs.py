from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from llf_core import __version__
from llf_core.runs import listing
from llf_core.runs.listing import read_row
from llf_core.runs.run_index import QueryCancelledError, RunIndex


async def test_version_tells_what_the_server_is(ask, llf_home):
    assert await ask("version") == (
        200,
        {
            "llf": __version__,
            "formats": [1],
            "home": hashlib.sha256(str(llf_home.resolve()).encode()).hexdigest(),
            "folder": str(llf_home / "runs"),
            "training": find_spec("torch") is not None,
        },
    )


async def test_the_folder_below_the_users_own_is_short(ask, llf_home, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: llf_home.parent)
    assert (await ask("version"))[1]["folder"] == "~/llf-home/runs"


async def test_no_runs_and_no_home_are_an_empty_list(ask, llf_home):
    assert not llf_home.exists()
    assert await ask("runs") == (200, {"total": 0, "runs": []})


async def test_runs_are_paged_filtered_and_searched(ask, make_run):
    made = [make_run(f"run-{number}", state="finished") for number in range(5)]
    made[3].status.write_text(json.dumps(json.loads(made[3].status.read_text()) | {"state": "failed"}))

    async def ids(**params):
        code, answer = await ask("runs", params=params)
        assert code == 200
        return answer["total"], [row["name"] for row in answer["runs"]]

    assert await ids() == (5, ["run-4", "run-3", "run-2", "run-1", "run-0"])
    assert await ids(offset=1, limit=2) == (5, ["run-3", "run-2"])
    assert await ids(state="failed") == (1, ["run-3"])
    assert await ids(query="RUN-2") == (1, ["run-2"])


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"limit": "0"}, "limit is '0'. Expected an integer from 1 to 200."),
        ({"limit": "201"}, "limit is '201'. Expected an integer from 1 to 200."),
        ({"offset": "-1"}, "offset is '-1'. Expected an integer from 0 to 999999999."),
        ({"offset": "5%d"}, "offset is '5%d'. Expected an integer from 0 to 999999999."),
    ],
)
async def test_a_bad_query_is_a_sentence(ask, params, said):
    assert await ask("runs", params=params) == (400, {"message": said})


async def test_an_unknown_state_is_a_sentence(ask):
    code, answer = await ask("runs", params={"state": "asleep"})
    assert code == 400
    assert answer["message"].startswith("state is 'asleep'. Expected one of queued, created, starting,")


async def test_one_run(ask, make_run):
    folder = make_run("demo", state="finished", step=7, total=9)
    code, answer = await ask("runs", folder.id)
    assert code == 200
    assert answer["id"] == folder.id
    assert (answer["status"]["state"], answer["status"]["step"], answer["status"]["total"]) == (
        "finished",
        7,
        9,
    )
    assert answer["meta"]["name"] == "demo"


async def test_a_run_whose_processes_are_gone_is_lost(ask, make_run):
    folder = make_run(state="running", supervisor={"pid": 2**22 + 1, "started": 1.0}, pid=2**22 + 2, started=1.0)
    assert (await ask("runs", folder.id))[1]["status"]["state"] == "lost"
    assert (await ask("runs"))[1]["runs"][0]["state"] == "lost"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"state": "asleep"}', '{"format": 2, "state": "running"}'])
async def test_a_broken_folder_is_listed_as_broken(ask, make_run, text):
    whole, broken = make_run("whole", state="finished"), make_run("broken")
    broken.status.write_text(text)
    answer = (await ask("runs"))[1]
    assert {row["id"]: row["state"] for row in answer["runs"]} == {whole.id: "finished", broken.id: "broken"}
    code, one = await ask("runs", broken.id)
    assert (code, one["status"]["state"]) == (200, "broken")
    assert one["status"]["reason"]
    assert await ask("runs", broken.id, "control", body={"type": "stop"}) == (
        409,
        {"message": one["status"]["reason"]},
    )


async def test_markup_in_a_name_is_only_text(ask, make_run, jp_fetch):
    make_run("<img src=x onerror=alert(1)>")
    response = await jp_fetch("llf", "api", "runs")
    assert response.headers["Content-Type"].startswith("application/json")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_search_that_is_too_long_is_a_sentence(ask, make_run):
    make_run("demo")
    code, answer = await ask("runs", params={"query": "a " * 99})
    assert (code, answer["message"]) == (400, "The search has 99 words. Expected at most 20.")
    code, answer = await ask("runs", params={"query": "words" * 3000})
    said = "The search has 15,000 characters. Expected at most 200: use fewer words."
    assert (code, answer["message"]) == (400, said)


async def test_a_list_answers_while_the_runs_are_still_read(ask, make_run, monkeypatch):
    for number in range(3):
        make_run(f"run-{number}", state="finished")
    go_on = threading.Event()

    def slow(folder, **how):
        if not how.get("curve", True):
            assert go_on.wait(30)
        return read_row(folder, **how)

    monkeypatch.setattr(listing, "read_row", slow)
    try:
        code, answer = await ask("runs")
        assert (code, answer["total"], len(answer["runs"]), "reading" in answer) == (200, 3, 3, False)
        # What was shown is known already; the rest is being read.
        assert await ask("runs", params={"query": "run", "limit": 1}) == (200, answer | {"runs": answer["runs"][:1]})
    finally:
        go_on.set()
    assert (await ask("runs", params={"query": "run-1"}))[1]["total"] == 1


async def test_work_ends_when_the_client_has_gone(
    http_server_client, http_server_port, jp_base_url, jp_auth_header, make_run, monkeypatch
):
    make_run("demo", state="finished")
    ended = threading.Event()
    asked = threading.Event()

    def wait(self, *args, is_cancelled, **rest):
        asked.set()
        while not is_cancelled():
            time.sleep(0.01)
        ended.set()
        raise QueryCancelledError

    monkeypatch.setattr(RunIndex, "cached_page", wait)
    assert http_server_client is not None
    _reader, writer = await asyncio.open_connection("localhost", http_server_port[-1])
    lines = [f"GET {jp_base_url}llf/api/runs HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in jp_auth_header.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    assert await asyncio.to_thread(asked.wait, 30)
    assert not ended.is_set()
    writer.close()
    assert await asyncio.to_thread(ended.wait, 30)


async def test_no_answer_has_a_secret(ask, make_run):
    token, address = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx", "https://me:s3cr3t@data.example.org/faq.jsonl"
    folder = make_run("demo", state="failed", reason=f"No answer of {address}")  # as another LLF may have written it
    folder.config.write_text(f"stage: sft\nmodel_name_or_path: tiny\ndataset: {address}\n")
    folder.meta.write_text(json.dumps({"revision": 1, "name": token, "tags": [token], "note": address}))
    folder.log.write_text(f"{token} {address}\n")
    event = {"v": 1, "time": 1.0, "attempt": 1, "type": "warning", "message": f"{token} {address}"}
    folder.events.write_text(json.dumps(event) + "\n")
    folder.samples.write_text(json.dumps({"step": 1, "kind": "answer", "prompt": "p", "text": token}) + "\n")
    folder.env.write_text(json.dumps({"command": [address], "notebook": {"path": address}}))
    for parts, params in (
        (("runs",), {}),
        (("runs", folder.id), {"details": "1"}),
        (("runs", folder.id, "monitor"), {"details": "1"}),
        (("runs", folder.id, "summary"), {}),
    ):
        code, answer = await ask(*parts, params=params)
        text = json.dumps(answer)
        assert code == 200
        assert "***" in text
        assert token not in text, parts
        assert "s3cr3t" not in text, parts
    code, answer = await ask("runs", params={"sort": token})
    assert (code, token in answer["message"]) == (400, False)
