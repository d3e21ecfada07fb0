"""A run of two "machines" of one process each: two agents that meet on loopback, and one folder of runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from llf_core.estimate.devices import probe_file, probe_key
from llf_core.launch import launch
from llf_core.runs import RunReader, read_status
from tests.processes import end, processes_of

pytestmark = [pytest.mark.launches, pytest.mark.timeout(290)]
ROWS = [{"instruction": f"say {i} " * (1 + i % 5), "output": f"word {i * 7 % 13} " * (1 + i % 4)} for i in range(16)]
JOIN = "import sys; from llf_core.launch import launch; print(launch(sys.argv[1]).id)"
RESUME = "import sys; from llf_core.launch import attach; print(attach(sys.argv[1]).resume().id)"


@pytest.fixture
def config(tiny_model_dir, tmp_path, llf_home):
    slow = {probe_key(torch.backends.cpu.get_cpu_capability(), threads): 1.0 for threads in (1, 2)}
    probe_file().parent.mkdir(parents=True)
    probe_file().write_text(json.dumps(slow))
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    yield {
        "model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "finetuning_type": "lora",
        "lora_rank": 4, "cutoff_len": 64, "learning_rate": 1e-3, "max_steps": 6, "logging_steps": 1, "save_steps": 3,
        "use_cpu": True, "threads": 1, "per_device_train_batch_size": 2, "report_to": "none",
    }  # fmt: skip
    end(processes_of(llf_home))


@pytest.fixture
def variables(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (("FORCE_TORCHRUN", "1"), ("NNODES", "2"), ("NODE_RANK", "0"), ("NPROC_PER_NODE", "1"),
                        ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port))):  # fmt: skip
        monkeypatch.setenv(name, value)


def second(code, argument):
    """Run code on the second machine: its own process, with another NODE_RANK."""
    return subprocess.Popen([sys.executable, "-c", code, argument], env=os.environ | {"NODE_RANK": "1"}, text=True,
                            stdout=subprocess.PIPE)  # fmt: skip


def losses(run):
    columns = RunReader(run.folder).metrics()
    return dict(zip(columns.steps("loss").tolist(), columns.values("loss").tolist(), strict=True))


def wait_for_step(run, step):
    deadline = time.monotonic() + 120
    while read_status(run.folder).step < step:
        assert time.monotonic() < deadline
        assert not run.status().final, run.status().reason
        time.sleep(0.05)


def ranks_of(run):
    found = {}
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except psutil.Error:
            continue
        if variables.get("LLF_RUN") == str(run.folder.path) and "RANK" in variables:
            found[int(variables["RANK"])] = process
    return found


def both(config, tmp_path):
    """The run of the first machine, which the second has joined."""
    run = launch(config)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    joined = second(JOIN, str(path))
    assert joined.communicate(timeout=120)[0].strip() == run.id
    return run


def test_two_machines_stop_resume_and_train_as_one_process_does(config, tmp_path, variables):
    config |= {"max_steps": 200, "save_steps": 1000}
    with pytest.MonkeyPatch.context() as alone:
        for name in ("FORCE_TORCHRUN", "NNODES"):
            alone.delenv(name)
        one = launch(config | {"per_device_train_batch_size": 4})
    run = both(config, tmp_path)
    wait_for_step(run, 2)
    ranks = ranks_of(run)
    assert ranks.keys() == {0, 1}
    run.stop(wait=True)
    assert run.status().state == "stopped", run.status().reason
    assert not psutil.wait_procs(list(ranks.values()), timeout=10)[1]
    again = second(RESUME, run.id)
    run.resume()
    assert again.communicate(timeout=120)[0].strip() == run.id
    status = run.wait(timeout=200, progress=False)
    assert (status.state, status.step) == ("finished", 200), status.reason
    assert one.wait(timeout=200, progress=False).state == "finished"
    assert losses(run) == {step: pytest.approx(value, rel=1e-6) for step, value in losses(one).items()}
    first, other = (load_file(each.folder.output / "adapter_model.safetensors") for each in (one, run))
    assert all(torch.allclose(first[name], other[name], rtol=0, atol=1e-5) for name in first)


def test_two_machines_that_each_have_all_shards_stop_resume_and_train_as_one_process_does(
    config, tmp_path, variables, monkeypatch
):
    config |= {"finetuning_type": "full", "learning_rate": 1e-4, "max_steps": 200, "save_steps": 1000}
    with pytest.MonkeyPatch.context() as alone:
        for name in ("FORCE_TORCHRUN", "NNODES"):
            alone.delenv(name)
        one = launch(config | {"per_device_train_batch_size": 4})
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    run = both(config | {"per_device_train_batch_size": 1, "strategy": "hsdp"}, tmp_path)
    wait_for_step(run, 2)
    assert ranks_of(run).keys() == {0, 1, 2, 3}
    run.stop(wait=True)
    (state,) = run.folder.checkpoints.glob("*/optimizer_shards")
    states = [tensor for file in state.iterdir() for tensor in load_file(file).values()]
    again = second(RESUME, run.id)
    run.resume()
    assert again.communicate(timeout=120)[0].strip() == run.id
    assert run.wait(timeout=200, progress=False).state == "finished", run.status().reason
    assert one.wait(timeout=200, progress=False).state == "finished"
    assert losses(run) == {step: pytest.approx(value, rel=1e-6) for step, value in losses(one).items()}
    weights = load_file(one.folder.output / "model.safetensors")
    assert sum(tensor.numel() for tensor in states) == 2 * sum(tensor.numel() for tensor in weights.values())


@pytest.mark.long
def test_a_rank_that_is_killed_on_the_other_machine_is_named_and_all_end(config, tmp_path, variables):
    run = both(config | {"max_steps": 5000, "save_steps": 5000}, tmp_path)
    wait_for_step(run, 2)
    ranks = ranks_of(run)
    os.kill(ranks[1].pid, signal.SIGKILL)
    status = run.wait(timeout=60, progress=False)
    assert status.state == "failed"
    assert "Process 1 of 2 (counted from 0) was terminated by SIGKILL at step" in status.reason
    assert not psutil.wait_procs(processes_of(run.folder.path), timeout=15)[1]
