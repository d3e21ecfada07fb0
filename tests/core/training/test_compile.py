"""`torch_compile` with the fast path: the same losses, only later. Needs a C++ compiler."""

import pytest

from llf_core.runs import RunReader
from llf_core.training.session import run_attempt


@pytest.mark.long
def test_a_compiled_run_has_the_losses_of_a_plain_one(make_run):
    losses = []
    for compiled in (False, True):
        folder = make_run(max_steps=3, logging_steps=1, torch_compile=compiled)
        assert run_attempt(folder, 1) == 0, folder.log
        losses.append(RunReader(folder).metrics().values("loss").tolist())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
