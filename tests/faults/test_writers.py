"""kill -9 at every write of those who write little: the cell that launches, and the server that passes requests on."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llf_core.launch import Run
from llf_core.launch.local_process import start_supervisor
from llf_core.runs import create_run, list_runs, open_run, read_status
from llf_core.runs.status import START_SECONDS, effective_status
from tests.faults.jupyter import Jupyter, write_config

LAUNCHER = Path(__file__).with_name("launcher.py")
PROGRAM = Path(__file__).parents[1] / "core" / "launch" / "program.py"


def launcher(config, fault=""):
    """Ends as the launching process ended."""
    return subprocess.run(
        [sys.executable, LAUNCHER, config, PROGRAM],
        env=os.environ | ({"LLF_FAULT": f"{fault}:1@launcher"} if fault else {}),
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


def resume(run):
    """Resumes with the small program; it must finish."""
    run.resume(command=[sys.executable, str(PROGRAM), str(run.folder.path), "brief"])
    assert run.wait(120, progress=False).state == "finished"
    assert run.metrics()["loss"].tolist() == [1 / step for step in range(1, 61)]


@pytest.fixture
def config(settings, tmp_path):
    return write_config(tmp_path, settings)


@pytest.mark.parametrize("point", ["status.renamed", "env.written", "env.renamed"])
def test_a_cell_that_dies_while_it_makes_the_folder_leaves_no_run(config, llf_home, point):
    """At writes before the folder is there; `tests/core/runs/test_fault_points.py` dies at more of them."""
    assert launcher(config, point).returncode == -signal.SIGKILL
    assert list_runs(llf_home).total == 0
    done = launcher(config)
    assert Run(open_run(done.stdout.strip())).wait(120, progress=False).state == "finished"
    assert list_runs(llf_home).total == 1


def test_a_cell_that_dies_before_the_supervisor_leaves_a_run_that_is_soon_lost(config, llf_home):
    assert launcher(config, "run.created").returncode == -signal.SIGKILL
    (row,) = list_runs(llf_home).rows
    run = Run(open_run(row.id))
    assert run.state == "created"
    stored = read_status(run.folder)
    assert effective_status(stored, stored.heartbeat + START_SECONDS + 1).state == "lost"
    # As if that time had passed:
    run.folder.status.write_text(json.dumps(json.loads(run.folder.status.read_text()) | {"heartbeat": 1.0}))
    resume(run)


@pytest.fixture
def server(llf_home, tmp_path):
    """`server(fault) -> Jupyter`: one that dies at that write."""
    servers = []

    def start(fault=""):
        env = {"LLF_HOME": str(llf_home), "LLF_FAULT": f"{fault}:1@__main__"} if fault else {"LLF_HOME": str(llf_home)}
        servers.append(Jupyter(tmp_path / f"server-{len(servers)}", env))
        return servers[-1]

    yield start
    for one in servers:
        one.close()


@pytest.fixture
def going():
    """`going() -> Run`: one of the small program, which makes steps for some seconds."""

    def start():
        folder = create_run("model_name_or_path: tiny\n", "going")
        start_supervisor(folder, command=[sys.executable, str(PROGRAM), str(folder.path), "train"])
        run = Run(folder)
        while run.state != "running":
            assert not run.status().has_ended
            time.sleep(0.02)
        return run

    return start


def ask_and_die(server, run, request):
    """Sends a request, in the middle of which the server dies."""
    with pytest.raises((OSError, http.client.HTTPException)):
        server.ask(f"llf/api/runs/{run.id}/control", "POST", {"type": request})
    assert server.process.wait(120) == -signal.SIGKILL


@pytest.mark.parametrize(("point", "heard"), [("control.written", False), ("control.renamed", True)])
def test_a_stop_is_there_whole_or_not_at_all(server, going, point, heard):
    jupyter, run = server(point), going()
    ask_and_die(jupyter, run, "stop")
    if not heard:
        assert not [path for path in run.folder.control.iterdir() if not path.name.startswith(".")]
        assert run.state == "running"
        run.stop()
    assert run.wait(120, progress=False).state == "stopped"
    assert [event["ok"] for event in run.events() if event["type"] == "answer"] == [True]
    assert [path for path in run.folder.control.iterdir() if not path.name.startswith(".")] == []


DIES_AT = {"status.written": "lost", "status.renamed": "failed", "events.append": "failed"}


@pytest.mark.parametrize(("point", "state"), DIES_AT.items())
def test_a_kill_by_the_server_is_told_truly_wherever_it_dies(server, going, point, state):
    jupyter, run = server(point), going()
    os.kill(read_status(run.folder).supervisor_process.pid, signal.SIGKILL)  # so that the server carries it out itself
    ask_and_die(jupyter, run, "kill")
    stored = read_status(run.folder)
    assert not stored.trainer.alive()
    assert run.state == state
    assert state == "lost" or "Killed by the user" in stored.reason
