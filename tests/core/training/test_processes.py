"""A run of two real processes on this machine, started by torchrun's agent as a user's run is."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
from itertools import chain
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from llf_core.config import RunConfig
from llf_core.doctor import Doctor
from llf_core.estimate.devices import probe_file, probe_key
from llf_core.launch import launch
from llf_core.runs import Checkpoints, RunReader, create_run, read_status

pytestmark = [pytest.mark.launches, pytest.mark.timeout(290)]
ROWS = [{"instruction": f"say {i} " * (1 + i % 5), "output": f"word {i * 7 % 13} " * (1 + i % 4)} for i in range(16)]


@pytest.fixture
def settings(tiny_model_dir, tmp_path):
    """Of a run in float32, of 13 examples in batches of 4: the last one of an epoch leaves one process none."""
    slow = {probe_key(torch.backends.cpu.get_cpu_capability(), threads): 1.0 for threads in (1, 2)}
    probe_file().parent.mkdir(parents=True)
    probe_file().write_text(json.dumps(slow))
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(ROWS))
    (tmp_path / "texts.json").write_text(json.dumps([{"text": row["instruction"]} for row in ROWS]))
    return {
        "model_name_or_path": str(tiny_model_dir), "dataset": str(data), "finetuning_type": "lora", "lora_rank": 4,
        "cutoff_len": 64, "learning_rate": 1e-3, "max_steps": 9, "logging_steps": 1, "save_steps": 4, "use_cpu": True,
        "val_size": 3, "eval_strategy": "steps", "eval_steps": 4, "per_device_eval_batch_size": 2, "threads": 1,
    }  # fmt: skip


@pytest.fixture
def start(settings, tmp_path):
    """Starts a run; `dataset` is the name of a file in `tmp_path`."""

    def go(processes, **changes):
        if "dataset" in changes:
            changes["dataset"] = str(tmp_path / changes["dataset"])
        more = {"num_processes": processes, "per_device_train_batch_size": 4 // processes}
        return launch(settings | more | changes)

    return go


def values(run, name):
    return values_in(run.folder, name)


def values_in(folder, name):
    columns = RunReader(folder).metrics()
    return dict(zip(columns.steps(name).tolist(), columns.values(name).tolist(), strict=True))


def ended(run, seconds=200):
    run.wait(timeout=seconds)
    return run.status()


def wait_for_step(run, step):
    deadline = time.monotonic() + 120
    while read_status(run.folder).step < step:
        assert time.monotonic() < deadline
        assert not run.status().final, run.status().reason
        time.sleep(0.05)


def ranks_of(run):
    """Processes of the run's trainer, by their variable `RANK`."""
    found = {}
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except psutil.Error:
            continue
        if variables.get("LLF_RUN") == str(run.folder.path) and "RANK" in variables:
            found[int(variables["RANK"])] = process
    return found


def test_two_processes_train_as_one_does(start, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    alone, together = start(1), start(2)
    assert (ended(alone).state, ended(together).state) == ("finished", "finished")
    for name in ("loss", "eval_loss"):
        expected = values(alone, name)
        assert len(expected) >= 2
        assert values(together, name) == {step: pytest.approx(value, rel=1e-6) for step, value in expected.items()}
    assert values(together, "tokens") == values(alone, "tokens")
    one, two = (load_file(run.folder.output / "adapter_model.safetensors") for run in (alone, together))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-5) for name in one)
    examples = [json.loads(line)["number"] for line in together.folder.examples.read_text().splitlines()]
    assert [len(numbers) for numbers in examples] == [4, 4, 4, 1, 4, 4, 4, 1, 4]
    assert sorted(chain(*examples[:4])) == sorted(chain(*examples[4:8]))
    assert len(set(chain(*examples[:4]))) == 13
    until = time.monotonic() + 30
    while left := [path.name for path in temporary.iterdir() if path.name.startswith(("torchelastic", "llf"))]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def test_a_stop_is_agreed_on_and_a_resume_repeats_the_losses(start):
    changes = {"max_steps": 60, "save_steps": 50, "eval_strategy": "no", "val_size": 0, "lr_scheduler_type": "constant"}
    whole, stopped = start(2, **changes), start(2, **changes)
    wait_for_step(stopped, 3)
    stopped.stop()
    status = ended(stopped)
    assert status.state == "stopped", status.reason
    assert Checkpoints(stopped.folder).latest() is not None
    stopped.resume()
    assert ended(stopped).state == ended(whole).state == "finished"
    losses = values(whole, "loss")
    assert len(losses) == 60
    assert values(stopped, "loss") == losses


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_named_and_ends_the_others(start, rank):
    run = start(2, max_steps=5000, save_steps=5000, eval_strategy="no", val_size=0)
    wait_for_step(run, 2)
    ranks = ranks_of(run)
    assert ranks.keys() == {0, 1}
    os.kill(ranks[rank].pid, signal.SIGKILL)
    began = time.monotonic()
    status = ended(run, 60)
    assert time.monotonic() - began < 10
    assert status.state == "failed"
    assert f"Process {rank} of 2 (counted from 0) was terminated by SIGKILL at step" in status.reason
    assert not [one for one in ranks.values() if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_disk_that_is_full_in_one_process_ends_all_and_leaves_the_checkpoint_before(start, rank):
    """A limit on the size of its files, which one process gets while it runs."""
    changes = MOVED | {"strategy": "fsdp2", "finetuning_type": "full", "val_size": 0, "max_steps": 60, "save_steps": 25}
    whole, short = start(2, **changes), start(2, **changes)
    wait_for_step(short, 26)
    pid = ranks_of(short)[rank].pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000, before[1]))
    status = ended(short, 60)
    assert status.state == "failed"
    assert "the file size limit of 20.0 kB" in status.reason
    assert "checkpoint-25 is complete: resume continues from it." in status.reason
    assert Checkpoints(short.folder).list() == [25]
    short.resume()
    assert ended(short).state == ended(whole).state == "finished", short.status().reason
    assert values(short, "loss") == values(whole, "loss")


def test_a_process_that_stands_still_is_named_until_it_goes_on(start):
    run = start(2, max_steps=100_000, save_steps=100_000, eval_strategy="no", val_size=0)
    wait_for_step(run, 2)
    for rank, stopped in ranks_of(run).items():
        stopped.suspend()
        began = time.monotonic()
        while (reason := run.status().reason) is None:
            assert time.monotonic() - began < 10
            time.sleep(0.1)
        assert reason.startswith(f"Process {rank} of 2 (counted from 0) stands still since ")
        assert f"kill -CONT {stopped.pid} on " in reason
        step = run.status().step
        assert run.status().state == "running"
        stopped.resume()
        wait_for_step(run, step + 5)
        while run.status().reason is not None:
            assert time.monotonic() - began < 60
            time.sleep(0.1)
    found = [one for one in run.events() if one["type"] == "finding" and one["rule"] == "stands_still"]
    assert len(found) == 2
    assert all(one["until"] > 2 for one in found)
    run.kill()


def trained_by(script, settings, fork_server, *options):
    """Folder of a run of two processes of a script beside this file."""
    folder = create_run(RunConfig.load(settings).yaml(defaults=True), "scripted")
    with socket.create_server(("127.0.0.1", 0)) as free:
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    command = [str(fork_server.python), str(Path(__file__).with_name(script)), str(folder.path)]
    ranks = [
        subprocess.Popen(
            [*command, *map(str, options)],
            env=os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [one.communicate(timeout=200)[0].decode() for one in ranks]
    finally:
        for one in ranks:
            one.kill()
    assert read_status(folder).state == "finished", said
    return folder


def test_the_doctor_names_a_process_that_is_slow_or_differs(settings, fork_server):
    run = settings | {"num_processes": 2, "per_device_train_batch_size": 2, "max_steps": 14, "eval_strategy": "no"}
    folder = trained_by("faulty_ranks.py", run, fork_server, 0.1, 13, 9)
    found = {one.rule: one.message for one in Doctor(folder).look()}
    assert found["slowest_process"].startswith("Process 1 of 2 (counted from 0) is the slowest since step 5: ")
    assert sum(values_in(folder, "waiting/0").values()) >= 10 * 0.1
    # The weights differ from step 9 on, the divisor at step 13 alone.
    assert values_in(folder, "other_weights") == dict.fromkeys(range(9, 15), 1.0)
    assert values_in(folder, "other_loss") == {13: 1.0}
    assert found["processes_differ"].startswith(
        "Process 1 (counted from 0) divides its loss by another number than process 0 at step 13."
    )
    assert "Process 1" in read_status(folder).finding


def assert_the_same_steps(one, other):
    """The same losses and examples in each step."""
    losses = values(one, "loss")
    assert values(other, "loss") == {step: pytest.approx(value, rel=1e-6) for step, value in losses.items()}
    rows = ([json.loads(line) for line in run.folder.examples.read_text().splitlines()] for run in (one, other))
    expected, found = ({row["step"]: sorted(row["number"]) for row in each} for each in rows)
    assert found == expected
    return losses


MOVED = {"max_steps": 40, "save_steps": 7, "eval_strategy": "no", "lr_scheduler_type": "linear"}


@pytest.mark.parametrize("strategy", ["fsdp2", pytest.param("ddp", marks=pytest.mark.long)])
def test_a_killed_run_goes_on_with_another_number_of_processes(start, strategy):
    whole, moved = start(1, **MOVED), start(2, strategy=strategy, **MOVED)
    wait_for_step(moved, 11)
    moved.kill()
    ended(moved)
    killed_at = max(values(moved, "loss"))  # right at a checkpoint no step is repeated
    moved.resume(num_processes=1)
    status = ended(moved)
    assert ended(whole).state == status.state == "finished", status.reason
    assert len(assert_the_same_steps(whole, moved)) == 40
    resumed_at = int(re.search(r"in 1 process from step (\d+)", status.reason).group(1))
    receipts = [event for event in moved.events() if event["type"] == "receipt"]
    assert [one["processes"] for one in receipts] == ([] if resumed_at == killed_at else [[2, 1]])
    assert all(one["largest"] < 1e-6 for one in receipts)


def test_a_stream_is_shared_and_goes_on_in_another_number_of_processes(start):
    changes = MOVED | {"streaming": True, "buffer_size": 5, "val_size": 0, "save_steps": 500, "max_steps": 200}
    whole, moved = start(1, **changes), start(2, **changes)
    wait_for_step(moved, 6)
    moved.stop()
    assert ended(moved).state == "stopped", moved.status().reason
    moved.resume(num_processes=1)
    assert ended(whole).state == ended(moved).state == "finished", moved.status().reason
    losses = values(whole, "loss")
    assert len(losses) == 200
    assert values(moved, "loss") == {step: pytest.approx(loss, rel=1e-6) for step, loss in losses.items()}
    assert values(moved, "tokens") == values(whole, "tokens")


@pytest.mark.long
def test_a_stopped_run_goes_on_in_1_4_and_2_processes(start):
    changes = MOVED | {"max_steps": 60}
    whole, moved = start(1, **changes), start(2, **changes)
    for step, processes in ((5, 1), (20, 4), (35, 2)):
        wait_for_step(moved, step)
        moved.stop()
        assert ended(moved).state == "stopped", moved.status().reason
        moved.resume(num_processes=processes)
    assert ended(whole).state == ended(moved).state == "finished", moved.status().reason
    assert len(assert_the_same_steps(whole, moved)) == 60


SHARDED = {
    "adapters": {},
    "accumulation": {"gradient_accumulation_steps": 2, "max_grad_norm": 0.05, "gradient_checkpointing": True},
    "4 bits": {"quantization_bit": 4, "double_quantization": True, "watched_prompts": ["say 3"]},
    "all weights": {"finetuning_type": "full", "watched_prompts": ["say 3"]},
    "texts": {"finetuning_type": "full", "stage": "pt", "cutoff_len": 16, "dataset": "texts.json"},
}


@pytest.mark.parametrize(
    "name", ["4 bits", "all weights", *(pytest.param(one, marks=pytest.mark.long) for one in SHARDED)]
)
def test_sharded_weights_train_as_whole_ones_do(start, name):
    strategies = ("fsdp2", "zero2") if name == "all weights" else ("fsdp2",)
    alone, *sharded = start(1, **SHARDED[name]), *(start(2, strategy=one, **SHARDED[name]) for one in strategies)
    for together in sharded:
        assert_the_same_result(alone, together, samples="watched_prompts" in SHARDED[name])


def test_the_first_process_alone_loads_what_is_sharded(settings, start, fork_server):
    run = settings | {"add_tokens": ["<new>"], "init_special_tokens": "noise_init", "max_steps": 4}
    alone = start(1, **run)
    two = run | {"num_processes": 2, "per_device_train_batch_size": 2, "strategy": "fsdp2"}
    folder = trained_by("loading_ranks.py", two, fork_server)
    first, second = (json.loads((folder.path / f"held.{rank}").read_text()) for rank in range(2))
    assert (first["before"], second["before"]) == (["cpu"], ["meta"])
    assert first["drawn"] == second["drawn"]  # although the first process alone draws random weights
    assert first["buffers"] == second["buffers"]
    assert any("inv_freq" in name for name in first["buffers"])
    assert ended(alone).state == "finished"
    (model,) = [event for event in alone.events() if event["type"] == "model"]
    assert first["parameters"] == second["parameters"] == model["parameters"]  # tied ones count once
    expected, found = (load_file(one.output / "adapter_model.safetensors") for one in (alone.folder, folder))
    assert expected.keys() == found.keys()
    assert all(torch.allclose(expected[name], found[name], rtol=0, atol=1e-5) for name in expected)


def assert_the_same_result(alone, together, *, samples):
    """The same losses, weights and answers to watched prompts."""
    states = ended(alone).state, ended(together).state
    assert states == ("finished", "finished"), together.status().reason
    for metric in ("loss", "eval_loss", "grad_norm"):
        expected = values(alone, metric)
        assert len(expected) >= 2
        found = values(together, metric)
        assert found == {step: pytest.approx(value, rel=1e-6) for step, value in expected.items()}
    one, two = (sorted(run.folder.output.iterdir()) for run in (alone, together))
    assert [path.name for path in one] == [path.name for path in two]
    for path, other in zip(one, two, strict=True):
        if path.suffix == ".safetensors":
            weights, others = load_file(path), load_file(other)
            assert {key: (one.shape, one.dtype) for key, one in weights.items()} == {
                key: (one.shape, one.dtype) for key, one in others.items()
            }
            assert all(torch.allclose(weights[key], others[key], rtol=0, atol=1e-5) for key in weights)
    texts = [
        [(row["step"], row["text"]) for row in map(json.loads, run.folder.samples.read_text().splitlines())]
        for run in (alone, together)
        if run.folder.samples.exists()
    ]
    assert len(texts) == (2 if samples else 0)
    assert texts[:1] == texts[1:]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_sharded_run_goes_on_in_one_process_and_again_in_two(start, kind):
    changes = MOVED | {"finetuning_type": kind, "max_steps": 150, "save_steps": 20}
    whole, moved = start(1, **changes), start(2, strategy="fsdp2", **changes)
    for step, processes in ((22, 1), (42, 2)):
        wait_for_step(moved, step)
        moved.kill()
        ended(moved)
        moved.resume(num_processes=processes)
    status = ended(moved)
    assert ended(whole).state == status.state == "finished", status.reason
    assert len(assert_the_same_steps(whole, moved)) == 150
    receipts = [event for event in moved.events() if event["type"] == "receipt"]
    # A kill right at a checkpoint leaves no step to repeat.
    assert [one["processes"] for one in receipts] in ([[2, 1], [1, 2]], [[2, 1]], [[1, 2]])
    assert max(one["largest"] for one in receipts) < 1e-6
