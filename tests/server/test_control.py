from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from llf_core import runs

CHANGES = "learning_rate, max_steps, watch, evaluate"


@pytest.fixture
def live(make_run, live_process):
    """A run that this very process seems to train."""
    return make_run(state="running", **live_process)


@pytest.mark.parametrize("body", [{"type": "stop"}, {"type": "stop", "args": {"grace": 5}}, {"type": "checkpoint"}])
async def test_a_request_lands_in_the_run(ask, live, body):
    code, answer = await ask("runs", live.id, "control", body=body | {"by": "monitor"})
    assert code == 202
    (file,) = live.control.iterdir()
    written = json.loads(file.read_text())
    assert (written["id"], written["type"], written["args"], written["by"]) == (
        answer["id"],
        body["type"],
        body.get("args", {}),
        "monitor",
    )


@pytest.fixture
def orphan(make_run):
    """A run whose supervisor is gone, and a process that stands for its trainer."""
    folder = make_run(state="running")
    code = "import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, folder.path], start_new_session=True) as trainer:
        runs.status.update(folder, pid=trainer.pid, started=psutil.Process(trainer.pid).create_time(), supervisor=None)
        yield folder, trainer


async def test_kill_ends_a_trainer_whose_supervisor_is_gone(ask, orphan):
    folder, trainer = orphan
    assert await ask("runs", folder.id, "control", body={"type": "kill"}) == (202, {"id": None})
    assert trainer.wait(60) == -9
    status = runs.read_status(folder)
    assert status.state == "failed"
    assert status.reason.startswith("Killed by the user")


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
async def test_a_run_that_has_ended_takes_nothing(ask, make_run, state):
    folder = make_run(state=state)
    said = {"message": f"The run is {state}, so it cannot handle the request."}
    assert await ask("runs", folder.id, "control", body={"type": "stop"}) == (409, said)
    assert not list(folder.control.iterdir())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is not JSON."),
        (b"{", "The body is not JSON."),
        (b"\xff\xfe", "The body is not JSON."),
        (b"[" * 3000, "The body is not JSON."),
        ([], 'Expected a JSON object, as {"type": "stop"}.'),
        ({}, "type is 'None'. Expected one of stop, kill, checkpoint, evaluate, sample, set."),
        ({"type": "rm -rf"}, "type is 'rm -rf'. Expected one of stop, kill, checkpoint, evaluate, sample, set."),
        ({"type": ["stop"]}, "type is \"['stop']\". Expected one of stop, kill, checkpoint, evaluate, sample, set."),
        ({"type": "stop", "command": "x"}, "Unknown field 'command'. Expected type, args and by."),
        ({"type": "stop", "by": 3}, "by is not a string of at most 64 characters."),
        ({"type": "stop", "by": "x" * 65}, "by is not a string of at most 64 characters."),
        ({"type": "stop", "args": []}, "args of stop is not an object with at most grace."),
        ({"type": "stop", "args": {"pid": 1}}, "args of stop is not an object with at most grace."),
        ({"type": "kill", "args": {"grace": 1}}, "args of kill is not an empty object."),
        ({"type": "stop", "args": {"grace": -1}}, "grace is '-1'. Expected seconds from 0 to 86400."),
        ({"type": "stop", "args": {"grace": True}}, "grace is 'True'. Expected seconds from 0 to 86400."),
        ({"type": "stop", "args": {"grace": "5"}}, "grace is '5'. Expected seconds from 0 to 86400."),
        (b'{"type": "stop", "args": {"grace": NaN}}', "grace is 'nan'. Expected seconds from 0 to 86400."),
        ({"type": "set"}, f"No change was given. Expected one of {CHANGES}."),
        ({"type": "set", "args": []}, "args of set is not an object with the settings to change."),
        (
            {"type": "set", "args": {"lora_rank": 1}},
            f"'lora_rank' cannot be changed in a live run. Expected one of {CHANGES}.",
        ),
        (
            {"type": "set", "args": {"learning_rate": 0}},
            "learning_rate is 0. Expected a number above 0 and at most 1.",
        ),
        ({"type": "evaluate", "args": {"now": 1}}, "args of evaluate is not an empty object."),
    ],
)
async def test_a_bad_body_is_a_sentence(ask, live, body, said):
    assert await ask("runs", live.id, "control", body=body) == (400, {"message": said})
    assert not list(live.control.iterdir())


async def test_a_change_lands_in_the_folder(ask, live):
    prompt = {"watch": "Ä" * 4000}
    status, _ = await ask("runs", live.id, "control", body={"type": "set", "args": prompt})
    assert status == 202
    (request,) = [json.loads(path.read_text()) for path in live.control.iterdir()]
    assert (request["type"], request["args"]) == ("set", prompt)


async def test_a_large_body_is_refused(ask, live):
    body = {"type": "stop", "by": "x" * 35_000}
    assert (await ask("runs", live.id, "control", body=body))[0] == 413
    assert not list(live.control.iterdir())


async def test_looking_changes_nothing(ask, live):
    assert (await ask("runs", live.id, "control"))[0] == 405
    assert not list(live.control.iterdir())
