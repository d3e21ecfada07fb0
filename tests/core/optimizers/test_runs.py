"""Optimizers in runs: what is saved of averages, what layer-wise updates log and refuse, precision, schedules."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llf_core.optimizers.per_parameter import PerParameterOptimizer
from llf_core.runs import RunReader, read_status, send_request, status
from llf_core.training.session import run_attempt
from tests.core.optimizers.test_training import losses, train_until

FULL = {"finetuning_type": "full", "gradient_accumulation_steps": 1, "use_cpu": True}
FREE = FULL | {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}


def test_checkpoints_and_the_result_hold_the_average_of_schedule_free(trained):
    """The evaluation loss of the result's weights is that of the last evaluation; the trained weights are another's."""
    folder, code = trained(**FREE, max_steps=4, save_steps=2, val_size=0.25, eval_strategy="steps", eval_steps=4)
    assert code == 0, read_status(folder).reason
    result, checkpoint = (
        load_file(path / "model.safetensors") for path in (folder.output, folder.checkpoints / "checkpoint-4")
    )
    assert all(torch.equal(result[name], checkpoint[name]) for name in result)
    stored = torch.load(folder.checkpoints / "checkpoint-4" / "optimizer.pt", weights_only=True)
    assert not any(group["trains"] for group in stored["param_groups"])
    shapes = {tuple(one["y"].shape) for one in stored["state"].values()}
    (embedding,) = [one for one in stored["state"].values() if one["y"].shape == (352, 64)]
    assert (64, 64) in shapes
    weight = result["model.embed_tokens.weight"].float()
    assert not torch.equal(embedding["y"], weight)
    # y = (1 - β₁) z + β₁ x
    assert (0.1 * embedding["z"] + 0.9 * weight - embedding["y"]).abs().max() < 1e-5


def test_the_best_checkpoint_of_schedule_free_is_the_result(trained):
    folder, code = trained(
        **FREE, max_steps=5, save_steps=2, val_size=0.25, eval_strategy="steps", eval_steps=2,
        load_best_model_at_end=True, learning_rate=0.02,
    )  # fmt: skip
    assert code == 0, read_status(folder).reason
    best = read_status(folder).best["step"]
    result, checkpoint = (
        load_file(path / "model.safetensors") for path in (folder.output, folder.checkpoints / f"checkpoint-{best}")
    )
    assert all(torch.equal(result[name], checkpoint[name]) for name in result)


def test_layerwise_updates_log_the_norm_of_all_gradients(trained):
    """In the first step the gradients are those of the same run without them."""
    options = FULL | {"max_steps": 1, "use_galore": True, "galore_rank": 8, "max_grad_norm": 0.0}
    norms = []
    for layerwise in (False, True):
        folder, code = trained(**options, galore_layerwise=layerwise)
        assert code == 0, read_status(folder).reason
        norms.append(RunReader(folder).metrics().last("grad_norm"))
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    assert norms[0] > 0


def test_layerwise_and_usual_updates_give_the_same_losses(trained):
    options = FULL | {"max_steps": 4, "use_galore": True, "galore_rank": 8, "max_grad_norm": 0.0}
    found = [losses(trained(**options, galore_layerwise=layerwise)[0]) for layerwise in (False, True)]
    assert list(found[1].values()) == pytest.approx(list(found[0].values()), rel=1e-6)


def test_a_step_that_does_not_fit_is_not_repeated_with_layerwise_updates(trained, monkeypatch):
    update, calls = PerParameterOptimizer._update_in_backward, []

    def fails(self, parameter):
        calls.append(parameter)
        if len(calls) == 5:
            raise MemoryError
        update(self, parameter)

    monkeypatch.setattr(PerParameterOptimizer, "_update_in_backward", fails)
    folder, code = trained(**FULL, max_steps=2, optim="lomo")
    assert code == 1
    reason = read_status(folder).reason
    assert "in step 1, and with layer-wise updates a step cannot be repeated in smaller parts" in reason
    assert "Set per_device_train_batch_size to 1." in reason


@pytest.mark.parametrize(
    "options",
    [
        {"use_galore": True, "galore_rank": 8, "galore_update_interval": 4, "pure_bf16": True},
        {"use_badam": True, "badam_switch_interval": 3, "pure_bf16": True},
        {"use_badam": True, "badam_switch_interval": 3, "bf16": True},
        {"use_muon": True, "pure_bf16": True},
        {"optim": "stable_adamw", "pure_bf16": True},
        {"optim": "adamw_anyprecision", "optim_args": "use_kahan_summation=true", "pure_bf16": True},
    ],
    ids="-".join,
)
def test_a_resume_in_bfloat16_repeats_the_losses(make_run, trained, monkeypatch, options):
    options = FULL | {"max_steps": 6, "save_strategy": "no"} | options
    whole, code = trained(**options)
    assert code == 0, read_status(whole).reason
    folder = make_run(**options)
    train_until(monkeypatch, folder, 3)
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) == 0, read_status(folder).reason
    assert losses(folder) == losses(whole)


def test_a_live_change_of_the_rate_reaches_layerwise_updates(make_run, monkeypatch):
    """LOMO's update is the rate times the gradient: at a rate of 0 the loss of one batch stays."""
    from llf_core.training.metrics_callback import MetricsCallback

    options = FULL | {"optim": "lomo", "max_steps": 5, "per_device_train_batch_size": 24, "learning_rate": 0.05}
    folder = make_run(**options, lr_scheduler_type="constant")
    counted = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            send_request(folder, "set", {"learning_rate": 1e-12}, by="test")
        counted(self, args, state, control, **kwargs)

    monkeypatch.setattr(MetricsCallback, "on_step_end", on_step_end)
    assert run_attempt(folder, 1) == 0, read_status(folder).reason
    found = losses(folder)
    assert found[1] > found[2] > found[3]
    assert found[3] == pytest.approx(found[4], rel=1e-6)
    assert found[4] == pytest.approx(found[5], rel=1e-6)


def test_the_greedy_schedule_rises_and_goes_on_after_a_resume(make_run, trained, monkeypatch):
    options = FULL | {
        "max_steps": 8, "val_size": 0.25, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "no",
        "lr_scheduler_type": "greedy", "learning_rate": 1e-4,
        "lr_scheduler_kwargs": {"patience": 1, "factor": 0.5, "min_lr": 1e-6, "max_lr": 1e-2},
    }  # fmt: skip
    whole, code = trained(**options)
    assert code == 0, read_status(whole).reason
    rates = RunReader(whole).metrics().values("learning_rate").tolist()
    # Two evaluations that are better than the best before double the rate.
    assert rates[:3] == pytest.approx([1e-4, 1e-4, 2e-4])
    assert rates == sorted(rates)
    folder = make_run(**options)
    train_until(monkeypatch, folder, 4)
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) == 0, read_status(folder).reason
    assert losses(folder) == losses(whole)
    assert RunReader(folder).metrics().values("learning_rate").tolist() == rates


def test_the_state_of_a_checkpoint_is_plain_data(trained):
    folder, code = trained(**FULL, max_steps=2, save_steps=2, use_badam=True, badam_switch_interval=2)
    assert code == 0, read_status(folder).reason
    stored = torch.load(folder.checkpoints / "checkpoint-2" / "optimizer.pt", weights_only=True)
    assert json.loads(json.dumps(stored["param_groups"][0]["badam"])) == {
        "step": 2, "block": 1, "order": [], "rounds": 0,
    }  # fmt: skip
