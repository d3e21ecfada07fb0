"""Every optimizer through the real trainer: the loss of one batch falls, and a resume repeats losses bit by bit."""

import pytest

from llf_core.runs import RunReader, read_status, send_request, status
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.session import run_attempt

GALORE = {"use_galore": True, "galore_rank": 8, "galore_update_interval": 4}
APOLLO = {"use_apollo": True, "apollo_rank": 8, "apollo_update_interval": 4, "apollo_scale": 1.0}
BADAM = {"use_badam": True, "badam_switch_interval": 3}
FREE = {"lr_scheduler_type": "constant"}
CASES = {
    "galore": GALORE,
    "galore 8-bit": GALORE | {"optim": "adamw_8bit"},
    "galore adafactor": GALORE | {"optim": "adafactor"},
    "galore full": GALORE | {"galore_proj_type": "full"},
    "galore layerwise": GALORE | {"galore_layerwise": True},
    "apollo": APOLLO,
    "apollo svd": APOLLO | {"apollo_proj": "svd"},
    "apollo layerwise": APOLLO | {"apollo_layerwise": True},
    "apollo-mini": APOLLO | {"apollo_rank": 1, "apollo_scale_type": "tensor", "apollo_scale": 128.0},
    "badam": BADAM,
    "badam descending": BADAM | {"badam_switch_mode": "descending"},
    "badam random": BADAM | {"badam_switch_mode": "random", "badam_switch_interval": 2},
    "badam fixed": BADAM | {"badam_switch_mode": "fixed", "badam_start_block": 1},
    "badam adjacent": BADAM | {"badam_mode": "ratio", "badam_update_ratio": 0.5},
    "badam scatter": BADAM | {"badam_mode": "ratio", "badam_update_ratio": 0.5, "badam_mask_mode": "scatter"},
    "adam_mini": {"use_adam_mini": True},
    "muon": {"use_muon": True},
    "lomo": {"optim": "lomo", "learning_rate": 0.05},
    "adalomo": {"optim": "adalomo"},
    "schedule_free_adamw": FREE | {"optim": "schedule_free_adamw"},
    "schedule_free_radam": FREE | {"optim": "schedule_free_radam", "adam_beta2": 0.9},
    "schedule_free_sgd": FREE | {"optim": "schedule_free_sgd", "learning_rate": 0.5},
    "stable_adamw": {"optim": "stable_adamw"},
    "grokadamw": {"optim": "grokadamw"},
    "adamw_anyprecision": {
        "optim": "adamw_anyprecision", "optim_args": "use_kahan_summation=true,momentum_dtype=bfloat16",
    },
}  # fmt: skip
"""Settings by a name of the case. Projections are renewed at step 4, which lies between the stop and the end."""
ONE_BATCH = {
    "finetuning_type": "full", "per_device_train_batch_size": 24, "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "constant", "use_cpu": True, "save_strategy": "no",
}  # fmt: skip


def losses(folder):
    columns = RunReader(folder).metrics()
    return dict(zip(columns.steps("loss").tolist(), columns.values("loss").tolist(), strict=True))


def train_until(monkeypatch, folder, step):
    """Make an attempt that is asked to stop after a step."""
    counted = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            send_request(folder, "stop", by="test")
        counted(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCallback, "on_step_end", on_step_end)
        assert run_attempt(folder, 1) == 0, read_status(folder).reason
    assert read_status(folder).state == "stopped"


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_one_batch_falls(trained, case):
    steps = 10 if case == "schedule_free_radam" else 4  # its variance is not known before the sixth step
    folder, code = trained(**{**ONE_BATCH, "max_steps": steps, **CASES[case]})
    assert code == 0, read_status(folder).reason
    found = [losses(folder)[step] for step in (1, 2, steps // 2 + 1, steps)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[-2]


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_repeats_the_losses_bit_by_bit(make_run, trained, monkeypatch, case):
    options = {
        "finetuning_type": "full", "gradient_accumulation_steps": 1, "max_steps": 7, "use_cpu": True,
        "val_size": 0.25, "eval_strategy": "steps", "eval_steps": 4, "save_strategy": "no", **CASES[case],
    }  # fmt: skip
    whole, code = trained(**options)
    assert code == 0, read_status(whole).reason
    folder = make_run(**options)
    train_until(monkeypatch, folder, 3)
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) == 0, read_status(folder).reason
    expected, found = ({step: loss.hex() for step, loss in losses(one).items()} for one in (whole, folder))
    assert len(expected) == 7
    assert found == expected
