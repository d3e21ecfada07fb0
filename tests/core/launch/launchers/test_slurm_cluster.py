"""A real Slurm of one node: runs are queued, shown, cancelled, stopped, resumed, requeued and killed."""

import json
import os
import signal
import subprocess
import time

import pytest
import torch

from llf_core.estimate.devices import probe_file, probe_key
from llf_core.launch import launch
from llf_core.runs import RunReader, list_runs, read_status
from llf_core.untrusted import read_object_or_empty
from tests.core.launch.launchers.slurm_cluster import cluster, is_there, slurm
from tests.processes import end, processes_of

pytestmark = [
    pytest.mark.long,
    pytest.mark.launches,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not is_there(), reason="needs Debian's slurm-wlm and munge, and root"),
]


@pytest.fixture
def config(tiny_model_dir, tmp_path):
    slow = {probe_key(torch.backends.cpu.get_cpu_capability(), 1): 1.0}
    probe_file().parent.mkdir(parents=True)
    probe_file().write_text(json.dumps(slow))
    rows = [{"instruction": f"say {i} " * (1 + i % 5), "output": f"word {i * 7 % 13} " * 3} for i in range(16)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return {
        "model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "finetuning_type": "lora",
        "cutoff_len": 64, "learning_rate": 1e-3, "max_steps": 200, "logging_steps": 1, "save_steps": 1000,
        "use_cpu": True, "threads": 1, "per_device_train_batch_size": 2, "report_to": "none",
    }  # fmt: skip


@pytest.fixture
def there(tmp_path, monkeypatch, llf_home):
    with cluster(tmp_path / "slurm") as env:
        monkeypatch.setenv("SLURM_CONF", env["SLURM_CONF"])
        yield env
    end(processes_of(llf_home))


def until(fact, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def at_step(run, step):
    until(
        lambda: read_status(run.folder).step >= step or (run.status().final and pytest.fail(str(run.status().reason)))
    )


def job_of(run):
    return read_object_or_empty(run.folder.env)["slurm"]["job"]


def losses(run):
    columns = RunReader(run.folder).metrics()
    return dict(zip(columns.steps("loss").tolist(), columns.values("loss").tolist(), strict=True))


def test_a_run_is_queued_cancelled_stopped_resumed_and_requeued_with_the_same_losses(config, there):
    subprocess.run(["sbatch", "--output=/dev/null"], input="#!/bin/sh\nsleep 600\n", text=True, env=there, check=True)
    run, other = launch(config, on="slurm:debug"), launch(config, on="slurm")
    assert [one.state for one in (run, other)] == ["queued", "queued"]
    other.kill()
    assert other.status().state == "stopped"
    assert slurm(there, "squeue", "--noheader", f"--jobs={job_of(other)}", "--format=%T").strip() == ""
    time.sleep(35)  # longer than a run without a process counts as live
    assert [(row.id, row.state) for row in list_runs().rows if row.id == run.id] == [(run.id, "queued")]
    slurm(there, "scancel", "1")
    at_step(run, 3)
    run.stop(wait=True)
    assert run.status().state == "stopped", run.status().reason
    run.resume()
    at_step(run, run.status().step + 3)
    slurm(there, "scontrol", "requeue", job_of(run))
    until(lambda: run.status().attempt == 3)
    final = run.wait(timeout=300, progress=False)
    assert (final.state, final.step, final.attempt) == ("finished", 200, 3), (final, run.log(20))
    alone = launch(config)
    assert alone.wait(timeout=200, progress=False).state == "finished"
    assert losses(run) == losses(alone)


def test_what_kills_a_job_is_told_and_leaves_no_process(config, there):
    config |= {"max_steps": 100_000, "save_steps": 100_000}
    run = launch(config, on="slurm")
    at_step(run, 2)
    run.kill()
    assert run.status().reason.startswith("Killed by the user at step")
    until(lambda: not processes_of(run.folder.home), 30)
    run.resume()
    at_step(run, 2)
    slurm(there, "scancel", job_of(run))  # SIGTERM: the trainer saves
    assert until(lambda: run.status().final, 60)
    assert run.status().state == "stopped", run.status().reason
    run.resume()
    at_step(run, run.status().step + 2)
    now = run.status()
    for process in (now.supervisor_process, now.trainer):
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: run.status().state == "failed", 60)
    assert run.status().reason.startswith(f"Slurm ended job {job_of(run)} (FAILED) at step")
    until(lambda: not processes_of(run.folder.home), 30)
