"""The same batch by other projects' kernels, where they are installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import AutoModelForCausalLM

from llf_core.acceleration.kernels.cross_entropy import nll_sum
from llf_core.acceleration.patching.causal_head import forward
from llf_core.acceleration.patching.install import accelerate

UNSLOTH = """
import json, sys
from unsloth import FastLanguageModel
import torch
folder, length = sys.argv[1], int(sys.argv[2])
model, _ = FastLanguageModel.from_pretrained(folder, max_seq_length=256, dtype=torch.bfloat16, load_in_4bit=False)
ids = torch.arange(5, 5 + length)[None].cuda()
with torch.no_grad():
    print(json.dumps({"loss": float(model(input_ids=ids, labels=ids).loss)}))
"""


def ours(folder, length, device, dtype):
    """The mean loss of one document on our fast path."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
    assert accelerate(model).flattens
    ids = torch.arange(5, 5 + length, device=device)[None]
    bounds = torch.tensor([0, length], dtype=torch.int32, device=device)
    batch = {
        "input_ids": ids, "position_ids": torch.arange(length, device=device)[None], "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds, "max_length_q": length, "max_length_k": length,
    }  # fmt: skip
    targets = F.pad(ids, (0, 1), value=-100)[:, 1:]
    with torch.no_grad():
        return float(forward(model, batch, lambda hidden, head: nll_sum(hidden, head, targets))) / (length - 1)


def test_ligers_kernels_cost_the_same(tiny_model_dir, device):
    if find_spec("liger_kernel") is None or device.type == "cpu":
        pytest.skip("Liger needs a card and the package liger-kernel.")
    from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16).to(device)
    _apply_liger_kernel_to_instance(model=model)
    ids = torch.arange(5, 105, device=device)[None]
    theirs = float(model(input_ids=ids, labels=ids).loss)
    assert ours(tiny_model_dir, 100, device, torch.bfloat16) == pytest.approx(theirs, rel=5e-3)


def test_unsloths_kernels_cost_the_same(tiny_model_dir, device):
    if find_spec("unsloth") is None or device.type == "cpu":
        pytest.skip("Unsloth needs a card and the package unsloth.")
    command = [sys.executable, "-c", UNSLOTH, str(tiny_model_dir), "100"]  # it changes transformers when imported
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr[-2000:]
    theirs = json.loads(said.stdout.strip().splitlines()[-1])["loss"]
    assert ours(tiny_model_dir, 100, device, torch.bfloat16) == pytest.approx(theirs, rel=5e-3)


def test_ours_in_half_precision_is_near_float64(tiny_model_dir, device):
    exact = ours(tiny_model_dir, 100, torch.device("cpu"), torch.float64)
    for dtype, rounding in ((torch.float32, 1e-5), (torch.bfloat16, 5e-3)):
        assert ours(tiny_model_dir, 100, device, dtype) == pytest.approx(exact, rel=rounding)
