"""`torch_compile` with the fast path: the same losses, only later. Needs a C++ compiler."""

import subprocess

import pytest

from llf_core.launch.local_process import trainer_command
from llf_core.runs import RunReader


@pytest.mark.long
@pytest.mark.launches
def test_a_compiled_run_has_the_losses_of_a_plain_one(make_run):
    losses = []
    for compiled in (False, True):
        folder = make_run(max_steps=3, logging_steps=1, torch_compile=compiled)
        subprocess.run(trainer_command(folder), check=True)  # torch's compiler changes its process for good
        losses.append(RunReader(folder).metrics().values("loss").tolist())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
