"""A real Ray of two nodes on loopback: runs are queued, cancelled, stopped, resumed, and lose worker, node and head."""

import json
import os
import signal
import time

import psutil
import pytest
import torch

from llf_core.estimate.devices import probe_file, probe_key
from llf_core.launch import launch
from llf_core.runs import Checkpoints, RunReader, list_runs, read_status
from tests.core.launch.launchers.ray_cluster import busy, cluster, is_there
from tests.processes import end, processes_of

pytestmark = [
    pytest.mark.launches,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not is_there(), reason="needs Ray: pip install '.[ray]'"),
]


@pytest.fixture
def config(tiny_model_dir, tmp_path, llf_home):
    slow = {probe_key(torch.backends.cpu.get_cpu_capability(), 1): 1.0}
    probe_file().parent.mkdir(parents=True)
    probe_file().write_text(json.dumps(slow))
    rows = [{"instruction": f"say {i} " * (1 + i % 5), "output": f"word {i * 7 % 13} " * 3} for i in range(16)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    yield {
        "model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "finetuning_type": "lora",
        "cutoff_len": 64, "learning_rate": 1e-3, "max_steps": 200, "logging_steps": 1, "save_steps": 1000,
        "use_cpu": True, "threads": 1, "per_device_train_batch_size": 2, "report_to": "none",
    }  # fmt: skip
    end(processes_of(llf_home))


@pytest.fixture
def ray(monkeypatch):
    with cluster() as one:
        for name, value in one.own.items():
            monkeypatch.setenv(name, value)
        yield one


def until(fact, seconds=180):
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def at_step(run, step):
    until(
        lambda: read_status(run.folder).step >= step or (run.status().final and pytest.fail(str(run.status().reason)))
    )


def losses(run):
    columns = RunReader(run.folder).metrics()
    return dict(zip(columns.steps("loss").tolist(), columns.values("loss").tolist(), strict=True))


def test_a_task_of_ray_supervises_a_run(config, ray):
    run = launch(config | {"max_steps": 3}, on=f"ray:{ray.address}")
    assert run.status().state in {"queued", "starting", "running"}
    final = run.wait(timeout=300, progress=False)
    assert (final.state, final.step) == ("finished", 3), (final.reason, run.log(20))
    until(lambda: not processes_of(run.folder.home), 60)


@pytest.mark.long
def test_a_run_is_queued_cancelled_stopped_and_resumed_with_the_same_losses(config, ray):
    held = busy(ray.address, ray.env)
    run, other = launch(config, on="ray"), launch(config, on=f"ray:{ray.address}")
    assert [one.status().state for one in (run, other)] == ["queued", "queued"]
    other.kill()
    assert other.status().state == "stopped"
    time.sleep(35)  # longer than a run without a process counts as live
    assert [(row.id, row.state) for row in list_runs().rows if row.id == run.id] == [(run.id, "queued")]
    held.kill()
    at_step(run, 3)
    run.stop(wait=True)
    assert run.status().state == "stopped", run.status().reason
    run.resume()
    final = run.wait(timeout=300, progress=False)
    assert (final.state, final.step, final.attempt) == ("finished", 200, 2), (final, run.log(20))
    alone = launch(config)
    assert alone.wait(timeout=200, progress=False).state == "finished"
    assert losses(run) == losses(alone)


def worker():
    """The process of Ray that holds a run."""
    (found,) = [one for one in psutil.process_iter() if one.name().startswith("ray::llf-")]
    return found


@pytest.mark.long
def test_what_ends_ray_is_told_and_leaves_no_process(config, ray):
    config |= {"max_steps": 100_000, "save_steps": 100_000}
    run = launch(config, on=f"ray:{ray.address}")
    at_step(run, 2)
    run.kill()
    assert run.status().reason.startswith("Killed by the user at step")
    until(lambda: not processes_of(run.folder.home), 60)
    run.resume()
    at_step(run, 2)
    os.kill(worker().pid, signal.SIGKILL)  # the supervisor has the trainer save
    until(lambda: run.status().final, 60)
    step = run.status().step
    assert run.status().state == "stopped", run.status().reason
    assert Checkpoints(run.folder).complete(step)
    until(lambda: not processes_of(run.folder.home), 60)
    run.resume()
    at_step(run, step + 2)
    now = run.status()
    for process in (now.supervisor_process, now.trainer):
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: run.status().final, 60)
    assert run.status().state == "failed", run.status().reason
    until(lambda: not processes_of(run.folder.home), 60)


@pytest.mark.long
def test_a_run_whose_cluster_loses_its_head_is_stopped_with_a_checkpoint(config, ray):
    run = launch(config | {"max_steps": 100_000, "save_steps": 100_000}, on=f"ray:{ray.address}")
    at_step(run, 2)
    ray.end_head()
    until(lambda: run.status().final, 120)
    assert run.status().state == "stopped", run.status().reason
    until(lambda: not processes_of(run.folder.home), 60)
