"""DPO as a whole run: where it starts, what it learns, what its reference is, and that a resume changes nothing."""

import math
import re

import numpy as np
import pytest
import yaml

from llf_core.config import RunConfig
from llf_core.config.declarations.stages.dpo import PREFERENCE_LOSSES
from llf_core.config.field_specs import field
from llf_core.models import plan_device
from llf_core.runs import RunReader, RunWriter
from llf_core.stages.dpo import DPO
from llf_core.stages.preference_losses import LOSSES
from llf_core.training.load_context import load_context
from tests.core.stages.curves import curve, stop_and_resume


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Computes in float32, whatever is faster here."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)


def test_every_loss_may_be_chosen():
    assert field("pref_loss").choices == tuple(LOSSES)
    assert tuple(PREFERENCE_LOSSES) == tuple(LOSSES)
    assert {name for name, loss in PREFERENCE_LOSSES.items() if not loss.needs_reference} == {"orpo", "simpo"}


@pytest.mark.parametrize("finetuning_type", ["lora", "full", "freeze"])
def test_it_starts_at_ln_2_and_learns_which_answer_is_better(trained, pairs, finetuning_type):
    folder, code = trained(
        stage="dpo", dataset=pairs, finetuning_type=finetuning_type, max_steps=12, learning_rate=3e-3, val_size=4
    )
    assert code == 0
    losses = curve(folder)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < 0.3
    metrics = RunReader(folder).metrics()
    assert metrics.values("rewards/margins")[-1] > 0.5
    assert metrics.values("rewards/accuracies")[-1] == 1.0
    margins = metrics.values("rewards/chosen") - metrics.values("rewards/rejected")
    np.testing.assert_allclose(metrics.values("rewards/margins"), margins, atol=1e-6)
    (held,) = [event for event in RunReader(folder).events() if event["type"] == "evaluation"]
    assert 0 <= held["values"]["eval_rewards/accuracies"] <= 1


STARTS = {
    "sigmoid": math.log(2), "hinge": 1.0, "ipo": (1 / 0.2) ** 2, "kto_pair": 0.5, "apo_zero": 1.0,
    "nca_pair": 2 * math.log(2), "sppo_hard": 12.5 * 4, "bco_pair": 2 * math.log(2),
}  # fmt: skip


@pytest.mark.parametrize("pref_loss", ["ipo", "hinge", "kto_pair", "apo_zero", "nca_pair", "bco_pair"])
def test_each_loss_starts_where_its_formula_does_for_equal_policies(trained, pairs, pref_loss):
    folder, code = trained(stage="dpo", dataset=pairs, pref_loss=pref_loss, max_steps=2)
    assert code == 0
    assert curve(folder)[0] == pytest.approx(STARTS[pref_loss], rel=1e-5)
    assert curve(folder)[1] != pytest.approx(STARTS[pref_loss], rel=1e-7)


@pytest.mark.parametrize(
    "changes", [{"pref_loss": "orpo"}, {"pref_loss": "simpo"}, {"pref_bco_weight": 0.5}, {"ld_alpha": 0.5}]
)
def test_the_others_of_the_family_train(trained, pairs, changes):
    folder, code = trained(stage="dpo", dataset=pairs, max_steps=10, learning_rate=3e-3, pref_ftx=0.1, **changes)
    assert code == 0
    losses = curve(folder)
    assert losses[-1] < losses[0]
    assert "sft_loss" in RunReader(folder).metrics().names


def test_asked_once_or_in_every_step_without_padding_or_with_it_the_losses_are_the_same(trained, pairs):
    runs = [
        trained(stage="dpo", dataset=pairs, learning_rate=3e-3, **changes)
        for changes in (
            {"precompute_ref_log_probs": True},
            {"precompute_ref_log_probs": False},
            {"fast_path": False},
            {"finetuning_type": "full", "precompute_ref_log_probs": False},
            {"finetuning_type": "full", "fast_path": False},
        )
    ]
    assert [code for _, code in runs] == [0] * len(runs)
    once, always, plain, full, full_plain = (curve(folder) for folder, _ in runs)
    np.testing.assert_allclose(always, once, rtol=2e-5)
    np.testing.assert_allclose(plain, once, rtol=2e-4)
    np.testing.assert_allclose(full_plain, full, rtol=2e-4)


def test_what_the_reference_said_is_kept_and_another_model_is_asked_anew(trained, pairs, capfd):
    first, _ = trained(stage="dpo", dataset=pairs)
    assert "Computed the reference log-probabilities of 16 examples" in capfd.readouterr().out
    again, _ = trained(stage="dpo", dataset=pairs)
    assert "Loaded the cached reference log-probabilities of 16 examples." in capfd.readouterr().out
    assert curve(again) == curve(first)
    named, code = trained(stage="dpo", dataset=pairs, ref_model_adapters=str(first.output))
    assert "Computed the reference log-probabilities of 16 examples" in capfd.readouterr().out
    assert code == 0
    assert curve(named)[0] != pytest.approx(math.log(2), abs=1e-5)


def test_some_examples_in_another_order_have_the_log_probabilities_of_their_own(make_run, pairs):
    """As a search of learning rates takes them, with the counts of the whole data."""
    folder = make_run(stage="dpo", dataset=pairs)
    config = RunConfig.load(folder.config)
    context = load_context(folder, config, RunWriter(folder, 1), plan_device(config))
    stage, train = DPO(context), context.data.train
    whole = [stage.examples(train)[place]["reference"].tolist() for place in range(len(train))]
    order = [*range(1, len(train)), 0]
    others = stage.examples(train.select(order))
    assert [one["reference"].tolist() for one in others] == [pytest.approx(whole[place]) for place in order]
    assert [one["reference"].tolist() for one in stage.examples(train)] == whole
    assert not list((folder.home / "cache" / "reference").glob("*.partial.npy"))


def test_random_weights_of_another_seed_are_another_reference(trained, pairs):
    for seed in (7, 8):
        folder, code = trained(
            stage="dpo", dataset=pairs, finetuning_type="full", train_from_scratch=True, max_steps=1, seed=seed,
            precompute_ref_log_probs=True,
        )  # fmt: skip
        assert code == 0
        assert curve(folder)[0] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("precomputed", [True, False])
def test_a_named_reference_of_random_weights_has_its_own(trained, pairs, tiny_model_dir, precomputed):
    folder, code = trained(
        stage="dpo", dataset=pairs, finetuning_type="full", train_from_scratch=True, max_steps=1,
        ref_model=str(tiny_model_dir), precompute_ref_log_probs=precomputed,
    )  # fmt: skip
    assert code == 0
    assert curve(folder)[0] != pytest.approx(math.log(2), abs=1e-4)


def test_a_run_that_goes_on_makes_the_same_losses(trained, make_run, pairs):
    whole, _ = trained(stage="dpo", dataset=pairs, pref_bco_weight=0.3, learning_rate=3e-3)
    half = make_run(stage="dpo", dataset=pairs, pref_bco_weight=0.3, learning_rate=3e-3, max_steps=6)
    config = yaml.safe_load(half.config.read_text())
    stop_and_resume(half, whole)
    assert config["stage"] == "dpo"


def test_the_loss_of_the_result_is_compared_with_what_the_run_began_with(trained, pairs, capfd):
    from llf_core.evaluation.run_losses import losses

    folder, _ = trained(stage="dpo", dataset=pairs, val_size=4, max_steps=10, learning_rate=3e-3)
    (held,) = [event for event in RunReader(folder).events() if event["type"] == "evaluation"]
    capfd.readouterr()
    found = losses(folder)
    assert "about 12 examples" not in capfd.readouterr().out  # those that were learned from
    assert found.base == pytest.approx(math.log(2), abs=1e-6)
    assert found.tuned == pytest.approx(held["values"]["eval_loss"], rel=1e-4)


def test_memory_that_runs_out_is_a_pause_and_the_losses_stay(trained, make_run, pairs, monkeypatch):
    from llf_core.stages import dpo
    from llf_core.training.session import run_attempt

    whole, _ = trained(stage="dpo", dataset=pairs, per_device_train_batch_size=4, pref_bco_weight=0.3)
    plain = dpo.DPO.loss_sum

    def cramped(self, model, batch, *args):
        loss = plain(self, model, batch, *args)
        if batch["groups"] > 2 and model.training:
            raise MemoryError
        return loss

    monkeypatch.setattr(dpo.DPO, "loss_sum", cramped)
    folder = make_run(stage="dpo", dataset=pairs, per_device_train_batch_size=4, pref_bco_weight=0.3)
    assert run_attempt(folder, 1) == 0
    (said,) = [one["message"] for one in RunReader(folder).events() if "Out of memory" in one.get("message", "")]
    assert "compares the examples of a part with each other, the result differs slightly" in said
    # The running mean of BCO grows part by part, so that a later part sees more of it.
    np.testing.assert_allclose(curve(folder), curve(whole), rtol=2e-3)
    metrics = [RunReader(one).metrics().values("logps/chosen") for one in (folder, whole)]
    np.testing.assert_allclose(*metrics, rtol=1e-4)


def test_a_stream_of_pairs_is_learned_from_too(trained, pairs):
    folder, code = trained(stage="dpo", dataset=pairs, streaming=True, max_steps=4, learning_rate=3e-3)
    assert code == 0
    assert curve(folder)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert curve(folder)[-1] < 0.69


def test_a_pair_that_does_not_fit_alone_is_named_with_a_cutoff_that_cuts_it(make_run, pairs, monkeypatch):
    from llf_core.stages import dpo
    from llf_core.training.session import run_attempt

    plain = dpo.DPO.loss_sum

    def cramped(self, model, batch, *args):
        if model.training and 5 in batch["numbers"]:
            raise MemoryError
        return plain(self, model, batch, *args)

    monkeypatch.setattr(dpo.DPO, "loss_sum", cramped)
    folder = make_run(stage="dpo", dataset=pairs, max_steps=8)
    assert run_attempt(folder, 1) != 0
    (error,) = [event for event in RunReader(folder).events() if event["type"] == "error"]
    assert error["message"].startswith("Example 6 of ")
    tokens = int(error["message"].split()[3])
    cutoff = int(re.search(r"cutoff_len below (\d+)", error["what_to_do"])[1])
    assert cutoff < tokens < 2 * cutoff  # the question counts once
