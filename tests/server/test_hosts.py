"""The panel's second home: the mirrored runs of another host, by `host=box`."""

from __future__ import annotations

import json
import time

import pytest

from llf_core import runs
from llf_core.runs.control import pending_requests


@pytest.fixture
def mirrored(llf_home):
    """A mirrored run of the host `box`, as its mirror process keeps it."""

    def inner(name: str, state: str = "running", since: float | None = None) -> runs.RunFolder:
        root = llf_home / "remote" / "box"
        folder = runs.create_run("model_name_or_path: tiny\nstage: sft\n", name, home=root)
        mirror = {"host": "box", "state": state, "since": since, "complete": False, "problem": "No route."}
        status = json.loads(folder.status.read_text()) | {
            "state": state, "host": "box", "heartbeat": time.time(), "mirror": mirror
        }  # fmt: skip
        folder.status.write_text(json.dumps(status))
        return folder

    return inner


async def test_hosts_and_their_runs_are_listed(ask, make_run, mirrored):
    assert await ask("hosts") == (200, {"hosts": []})
    here, there = make_run("here"), mirrored("there")
    mirrored("second")
    assert await ask("hosts") == (200, {"hosts": [{"host": "box", "runs": 2}]})
    code, page = await ask("runs", params={"host": "box", "query": "there"})
    assert (code, [(row["id"], row["state"]) for row in page["runs"]]) == (200, [(there.id, "running")])
    assert [row["id"] for row in (await ask("runs"))[1]["runs"]] == [here.id]
    assert (await ask("runs", there.id))[0] == 404
    code, details = await ask("runs", there.id, params={"host": "box", "details": "1"})
    assert (code, details["row"]["name"], details["status"]["mirror"]["host"]) == (200, "there", "box")
    assert (await ask("runs", there.id, "monitor", params={"host": "box"}))[0] == 200


async def test_what_is_stale_says_since_when(ask, mirrored):
    there = mirrored("there", since=time.time() - 600)
    reason = (await ask("runs", there.id, params={"host": "box"}))[1]["status"]["reason"]
    assert reason.startswith("No news from box since ")
    assert "No route." in reason


async def test_a_request_goes_to_the_mirror_which_carries_it_over(ask, mirrored):
    there = mirrored("there")
    code, answer = await ask(
        "runs", there.id, "control", params={"host": "box"}, body={"type": "stop", "by": "sidebar"}
    )
    assert code == 202
    assert [(one.type, one.id) for one in pending_requests(there)] == [("stop", answer["id"])]


async def test_what_belongs_to_the_host_is_not_changed_here(ask, mirrored):
    there, box = mirrored("there", "finished"), {"host": "box"}
    said = "This works for runs of this machine only, not for those of box."
    assert await ask("runs", there.id, "bin", params=box, body={}) == (400, {"message": said})
    change = await ask("runs", there.id, "meta", params=box, body={"revision": 0, "name": "a"}, method="PATCH")
    assert change == (400, {"message": said})
    assert there.path.is_dir()


@pytest.mark.parametrize(
    ("host", "status", "said"),
    [
        ("unknown", 404, "No run of unknown was opened from this machine."),
        ("-oProxyCommand=x", 400, "host is '-oProxyCommand=x'. Expected a host such as box or me@box:2222."),
        ("../..", 400, "host is '../..'. Expected a host such as box or me@box:2222."),
        ("box/there", 404, "No run of box/there was opened from this machine."),
    ],
)
async def test_other_names_reach_no_folder(ask, mirrored, host, status, said):
    mirrored("there")
    assert await ask("runs", params={"host": host}) == (status, {"message": said})
