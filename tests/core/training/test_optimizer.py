"""The default optimizer is PyTorch's fused AdamW, in the first attempt and in a resumed one."""

import pytest
import torch

from llf_core.runs import RunReader, read_status, send_request, status
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.session import run_attempt


@pytest.fixture
def optimizers(monkeypatch):
    """The optimizer of every step."""
    seen = []
    original = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        seen.append(getattr(optimizer, "optimizer", optimizer))
        original(self, args, state, control, optimizer=optimizer, **kwargs)

    monkeypatch.setattr(MetricsCallback, "on_step_end", on_step_end)
    return seen


def test_adamw_is_fused_also_after_a_resume_and_repeats_its_losses(make_run, trained, optimizers, monkeypatch):
    whole, _ = trained(max_steps=5, finetuning_type="full")
    folder = make_run(max_steps=5, finetuning_type="full")
    with monkeypatch.context() as patch:
        counted = MetricsCallback.on_step_end

        def stop_after_3(self, args, state, control, **kwargs):
            if state.global_step == 3:
                send_request(folder, "stop", by="test")
            counted(self, args, state, control, **kwargs)

        patch.setattr(MetricsCallback, "on_step_end", stop_after_3)
        assert run_attempt(folder, 1) == 0
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) == 0, read_status(folder).reason
    assert len(optimizers) == 5 + 5
    for optimizer in optimizers:
        assert type(optimizer) is torch.optim.AdamW
        assert all(group["fused"] for group in optimizer.param_groups)
    # A step count on another device or in another dtype is what the fused one refuses or rounds.
    steps = {state["step"] for state in optimizers[-1].state.values()}
    assert all(step.dtype == torch.float32 and step.item() == 5 for step in steps)
    before, after = ([float(v).hex() for v in RunReader(f).metrics().values("loss")] for f in (whole, folder))
    assert after == before
