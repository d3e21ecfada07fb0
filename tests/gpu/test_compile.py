"""`torch_compile` with the fast path: the same losses, only later."""

from __future__ import annotations

import shutil

import pytest
import torch

from llf_core.runs import read_status
from tests.gpu.conftest import losses


def test_a_compiled_run_has_the_losses_of_a_plain_one(trained, device, precise):
    if device.type == "cuda":
        pytest.importorskip("triton", reason="torch compiles for a card with Triton, which is not installed.")
        if not any(map(shutil.which, ("cc", "gcc", "clang"))):
            pytest.skip("Triton needs a C compiler, and there is none.")
    precise("float32")
    # What comes before a device's own code is the same on a CPU, and that code takes it minutes to make.
    backend, fast_path = ("inductor", True) if device.type == "cuda" else ("eager", False)
    same = {"max_steps": 2, "gradient_accumulation_steps": 1, "fast_path": fast_path}
    plain, code = trained(**same)
    assert code == 0, read_status(plain).reason
    try:
        compiled, code = trained(**same, torch_compile=True, torch_compile_backend=backend)
    finally:
        torch.compiler.reset()
    assert code == 0, read_status(compiled).reason
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
