"""A run with frozen lower layers skips them in later epochs; a resume changes no bit."""

import pytest

from llf_core.runs import Checkpoints, RunReader, read_status, send_request, status
from llf_core.training import session
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.session import run_attempt

FREEZE = {
    "finetuning_type": "freeze", "freeze_trainable_layers": 1, "max_steps": None, "num_train_epochs": 3.0,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "save_steps": 1,
}  # fmt: skip


def losses(folder):
    return [float(value).hex() for value in RunReader(folder).metrics().values("loss")]


@pytest.fixture
def trunks(monkeypatch):
    """What each attempt kept."""
    made = []
    keep = session.keep_trunk

    def remember(*arguments):
        made.append(keep(*arguments))
        return made[-1]

    monkeypatch.setattr(session, "keep_trunk", remember)
    return made


def test_later_epochs_skip_the_frozen_layers_and_learn_the_same(trained, trunks):
    kept, code = trained(**FREEZE)
    assert code == 0, read_status(kept).reason
    plain, _ = trained(**FREEZE, trunk_cache_gb=0)
    (trunk, none) = trunks
    assert none is None
    assert (trunk.depth, trunk.kept) == (1, 24)
    read = RunReader(kept).metrics().values("tokens")[-1]
    assert trunk.skipped == pytest.approx(read * 2 / 3)
    assert not (kept.path / "cache").exists()
    a, b = (RunReader(folder).metrics().values("loss") for folder in (kept, plain))
    assert a[:3] == pytest.approx(b[:3], rel=0)  # the first epoch is computed as ever
    assert a == pytest.approx(b, rel=1e-2)  # documents meet in other batches: their states are rounded otherwise


def test_the_same_batches_give_the_same_losses_to_the_last_bit(trained, trunks):
    one = FREEZE | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    kept, _ = trained(**one)
    plain, _ = trained(**one, trunk_cache_gb=0)
    assert trunks[0].skipped > 0
    assert losses(kept) == losses(plain)


@pytest.mark.parametrize("stop", [2, 5])
def test_a_resume_repeats_the_losses_to_the_last_bit(trained, make_run, trunks, monkeypatch, stop):
    whole, _ = trained(**FREEZE)
    folder = make_run(**FREEZE)
    original = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == stop:
            send_request(folder, "stop", by="test")
        original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCallback, "on_step_end", on_step_end)
        run_attempt(folder, 1)
    assert Checkpoints(folder).complete(stop)
    assert (folder.path / "cache" / "trunk" / "states").is_file()
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) == 0, read_status(folder).reason
    assert losses(folder) == losses(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": 3},  # one epoch
        {"neftune_noise_alpha": 5.0},
        {"finetuning_type": "lora", "freeze_trainable_layers": None},
        {"freeze_trainable_layers": 2},
        {"trunk_cache_gb": 1e-6},
    ],
)
def test_where_it_would_not_pay_or_not_be_right_nothing_is_kept(trained, trunks, changes):
    folder, code = trained(**FREEZE | {"max_steps": 4} | changes)
    assert code == 0, read_status(folder).reason
    assert trunks == [None]
