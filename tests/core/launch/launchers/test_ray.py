"""Ray without Ray: what is refused before a start, and what a watch writes while a run waits."""

import socket
import subprocess
import sys

import pytest

from llf_core.config import ConfigError, RunConfig
from llf_core.launch import launch
from llf_core.launch.launchers import cluster_watch, launch_problem, ray
from llf_core.launch.launchers.cluster_watch import WaitingRun
from llf_core.launch.launchers.ray_node import supervise
from llf_core.launch.queue import MachineLoad, enqueue
from llf_core.runs import create_run, list_runs, read_status, send_request, status
from llf_core.runs.listing import shown_status

CONFIG = {"model_name_or_path": "smollm2-135m-instruct", "dataset": "llf_demo", "max_steps": 3}


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(ray, "find_spec", lambda _: object())
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/nonexistent")


def refused(**changes):
    return launch_problem(RunConfig.load(CONFIG | {"launch": "ray"} | changes)).message


def test_without_ray_the_command_that_installs_it_is_said_and_no_run_is_made(monkeypatch):
    monkeypatch.setattr(ray, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"Ray is not installed\. Run: pip install ray\."):
        launch(CONFIG, on="ray")
    assert list_runs().total == 0


def test_a_head_that_is_none_or_does_not_answer_is_refused(installed, tmp_path, monkeypatch):
    assert refused().startswith("No Ray cluster runs on this machine. Set `launch_target` to HOST:PORT of its head")
    assert "Expected HOST:PORT of the head" in refused(launch_target="box")
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        assert launch_problem(RunConfig.load(CONFIG | {"launch": "ray", "launch_target": address})) is None
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)  # where Ray notes its cluster
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        assert launch_problem(RunConfig.load(CONFIG | {"launch": "ray"})) is None
    assert refused() == f"The head of the Ray cluster at {address} does not answer: Connection refused."


def test_use_ray_and_ray_num_workers_of_llama_factory_are_read(monkeypatch):
    config = RunConfig.load(
        CONFIG | {"ray_num_workers": 4, "ray_run_name": "x", "ray_storage_path": "./saves",
                  "placement_strategy": "PACK", "resources_per_worker": {"GPU": 1}}
    )  # fmt: skip
    assert (config.launch.num_processes, config.launch.launch) == (4, "local")
    monkeypatch.setattr(ray, "find_spec", lambda _: None)
    monkeypatch.setenv("USE_RAY", "1")
    with pytest.raises(ConfigError, match="Ray is not installed"):
        launch(CONFIG)


@pytest.fixture
def queued():
    folder = create_run(RunConfig.load(CONFIG | {"launch": "ray"}).yaml(defaults=True), "queued")
    enqueue(folder)
    status.update(folder, host=ray.HOST, boot_id=None)
    return folder


def driver(code):
    return subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, text=True)


def looked(folder, process):
    """The run's state after the watch has looked once, and whether that is all."""
    try:
        done = cluster_watch._is_done(folder, WaitingRun(folder, ray.HOST), 1, process)
    finally:
        process.kill()
    return shown_status(folder).state, done


def test_a_run_that_waits_is_queued_and_delays_no_run_here(queued):
    assert looked(queued, driver("import time; time.sleep(60)")) == ("queued", False)
    assert MachineLoad().ahead() == []


@pytest.mark.parametrize("request_type", ["stop", "kill"])
def test_a_stop_or_kill_removes_a_run_that_waits(queued, request_type):
    send_request(queued, request_type)
    process = driver("import time; time.sleep(60)")
    assert looked(queued, process) == ("stopped", True)
    assert process.poll() is not None
    assert not list(queued.control.iterdir())
    assert not queued.queue.exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [("print('a'); print('No node.'); exit(1)", "No node."),
     ("import os; os._exit(7)", "the connection to its head was lost (exit code 7).")],
)  # fmt: skip
def test_why_ray_did_not_start_a_run_is_told(queued, code, said):
    process = driver(code)
    process.wait()
    assert looked(queued, process) == ("failed", True)
    assert read_status(queued).reason.startswith(f"Ray ended the run before its first step: {said}")


def test_a_node_without_the_folder_or_with_another_version_is_named(queued, tmp_path):
    with pytest.raises(RuntimeError, match=r"does not have the folder .*/gone\. All nodes must share LLF_HOME"):
        supervise(str(tmp_path / "gone"), 1, "0.1.0", (), {})
    with pytest.raises(RuntimeError, match=r"has LLF .*\. Expected 0\.0\.0, as on this machine"):
        supervise(str(queued.path), 1, "0.0.0", (), {})
    assert read_status(queued).state == "created"
