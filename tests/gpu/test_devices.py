"""Which device a run takes, and what stays on the CPU."""

from __future__ import annotations

import json

import torch

from llf_core.config import RunConfig
from llf_core.models import plan_device
from llf_core.runs import read_status
from tests.gpu.conftest import events, losses, resolved


def test_a_run_takes_the_device_and_says_so(trained, device):
    folder, code = trained(max_steps=2)
    assert code == 0, read_status(folder).reason
    assert resolved(folder)["device"] == device.type
    assert read_status(folder).device == device.type
    (model,) = events(folder, "model")
    assert model["device"] == device.type
    found = json.loads(folder.env.read_text())
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        name = torch.cuda.get_device_name(device)
        assert found["device"] == {"type": "cuda", "name": name, "count": 1, "memory": total}


def test_the_cpu_is_taken_where_it_is_asked_for(trained, device):
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    folder, code = trained(max_steps=2, use_cpu=True)
    assert code == 0, read_status(folder).reason
    assert resolved(folder)["device"] == "cpu"
    assert min(losses(folder, "memory")) > 50e6  # of this process, not of the card
    assert (torch.cuda.memory_allocated() if device.type == "cuda" else 0) <= before


def test_all_of_a_trained_model_is_on_the_device(make_run, device, monkeypatch):
    from llf_core.training import session

    kept = []
    made = session.make_trainer
    monkeypatch.setattr(session, "make_trainer", lambda *args: kept.append(made(*args)) or kept[-1])
    folder = make_run(max_steps=2)
    assert session.run_attempt(folder, 1) == 0, read_status(folder).reason
    (trainer,) = kept
    assert {parameter.device.type for parameter in trainer.model.parameters()} == {device.type}
    assert {buffer.device.type for buffer in trainer.model.buffers()} == {device.type}
    states = [value for state in trainer.optimizer.state.values() for value in state.values() if value.ndim]
    assert states
    assert {value.device.type for value in states} == {device.type}


def test_the_precision_is_the_fastest_that_is_safe(settings, device):
    plan = plan_device(RunConfig.load(settings))
    if device.type == "cpu":
        assert plan.dtype in {"float32", "bfloat16"}
        return
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    assert (plan.dtype, plan.autocast) == (("bfloat16",) * 2 if bf16 else ("float16",) * 2)
    assert torch.cuda.get_device_name() in plan.reason
    assert plan.place == torch.cuda.current_device()
