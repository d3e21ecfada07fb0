"""Every optimizer through the real trainer: the loss of one batch falls, and a resume repeats losses bit by bit."""

import pytest

from llf_core.runs import RunReader, read_status, send_request, status
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.session import run_attempt

GALORE = {"use_galore": True, "galore_rank": 8, "galore_update_interval": 4}
CASES = {
    "galore": GALORE,
    "galore 8-bit": GALORE | {"optim": "adamw_8bit"},
    "galore adafactor": GALORE | {"optim": "adafactor"},
    "galore full": GALORE | {"galore_proj_type": "full"},
    "galore layerwise": GALORE | {"galore_layerwise": True},
}
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
    folder, code = trained(**ONE_BATCH, max_steps=4, **CASES[case])
    assert code == 0, read_status(folder).reason
    found = losses(folder)
    assert found[4] < found[3] < found[2] < found[1]


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_repeats_the_losses_bit_by_bit(make_run, trained, monkeypatch, case):
    options = {
        "finetuning_type": "full", "gradient_accumulation_steps": 1, "max_steps": 7, "use_cpu": True,
        "val_size": 0.25, "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "no", **CASES[case],
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
