"""SIGKILL of a rank, torchrun's agent or the supervisor at random moments of a run of two processes."""

import os
import random
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from llf_core.launch import launch
from llf_core.runs.control import AGENT_VARIABLE
from tests.core.training.test_processes import ended, ranks_of, settings, values  # noqa: F401 - a fixture
from tests.processes import processes_of, wait_for_supervisor

pytestmark = pytest.mark.timeout(7200)
MOMENTS = int(os.environ.get("LLF_TEST_MOMENTS", "20"))
STEPS, SOON = 40, 10  # seconds within which the end of a run is told
WHO = ("rank 0", "rank 1", "agent", "supervisor", "agent and supervisor")


def kill(run, who):
    """Kills those of the processes that live by now; returns how many."""
    now = run.status()
    found = [now.trainer] * ("agent" in who) + [now.supervisor_process] * ("supervisor" in who)
    found = [psutil.Process(one.pid) for one in found if one is not None and one.alive()]
    found += [process for number, process in ranks_of(run).items() if who == f"rank {number}"]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return len(found)


def wait_until_alone(home):
    """Waits until no process of any run is left; returns the seconds that it took."""
    began = time.monotonic()
    while left := processes_of(home):
        assert time.monotonic() - began < SOON, [one.cmdline() for one in left]
        time.sleep(0.05)
    return time.monotonic() - began


def kill_and_resume(config, who, wait, home):
    """Kills a run `wait` seconds after its start, resumes it: how many were killed, its state then, its losses."""
    run = launch(config)
    time.sleep(wait)
    killed = kill(run, who)
    began = time.monotonic()
    if who == "supervisor":  # the trainer goes on, and says itself how it ended
        state = ended(run).state
    else:
        while not (now := run.status()).has_ended:
            assert not killed or time.monotonic() - began < SOON, (who, now)
            time.sleep(0.05)
        state = now.state
    wait_until_alone(home)
    if state != "finished":
        run.resume()
        wait_for_supervisor(run)
        assert run.state == "finished", (who, wait, run.status().reason)
        wait_until_alone(home)
    return killed, state, values(run, "loss")


@pytest.mark.launches
@pytest.mark.long
def test_a_run_of_two_processes_that_is_killed_anywhere_is_told_and_goes_on_exactly(settings, llf_home):  # noqa: F811
    seed = int(os.environ.get("LLF_TEST_SEED", time.time_ns() % 2**32))
    print(f"LLF_TEST_SEED={seed}")  # shown where it fails
    chance = random.Random(seed)
    config = settings | {
        "num_processes": 2, "per_device_train_batch_size": 2, "max_steps": STEPS, "save_steps": 5,
        "eval_strategy": "no", "val_size": 0,
    }  # fmt: skip
    kinds = [{"strategy": strategy, "finetuning_type": kind}
             for strategy in ("ddp", "fsdp2") for kind in ("lora", "full")]  # fmt: skip
    whole, seconds = [], []
    for kind in kinds:
        began = time.monotonic()
        run = launch(config | kind)
        assert ended(run).state == "finished"
        seconds.append(time.monotonic() - began)
        whole.append(values(run, "loss"))
        assert len(whole[-1]) == STEPS
    number = made = 0
    while made < MOMENTS:
        which, who = number % len(kinds), WHO[number % len(WHO)]
        wait = chance.uniform(0, 1.1 * seconds[which])
        killed, state, losses = kill_and_resume(config | kinds[which], who, wait, llf_home)
        print(*kinds[which].values(), f"{killed} of {who} after {wait:.1f} s: {state}")
        assert state in {"finished", "failed", "lost"}
        assert losses == whole[which], (who, wait)
        number, made = number + 1, made + (killed > 0)


def test_a_rank_whose_agent_ended_before_it_began_ends(tmp_path):
    told = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", AGENT_VARIABLE: "1"}
    command = [sys.executable, "-P", "-m", "llf_core.training.main", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
