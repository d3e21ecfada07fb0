"""What TRL's own trainers make of the same log-probabilities: costs and gradients."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from llf_core.config.declarations.stages.dpo import PREFERENCE_LOSSES
from llf_core.stages.preference_losses import LOSSES, Terms, desensitized_sums, odds_ratio_loss
from tests.core.stages.losses.made_up import Answers, made_pairs, sequences, spread
from tests.core.stages.losses.test_losses import cut
from tests.tiny import tiny_llama, tiny_tokenizer

TERMS = Terms(beta=0.37, label_smoothing=0.2, gamma=0.8, discopop_tau=0.25)
IN_TRL = [name for name in LOSSES if name not in ("kto_pair", "orpo", "simpo")]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """TRL's trainer on a tiny model, to be told the log-probabilities of the reference."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer = tiny_tokenizer()
    made = DPOTrainer(
        tiny_llama(tokenizer),
        ref_model=tiny_llama(tokenizer, seed=1),
        args=DPOConfig(str(tmp_path_factory.mktemp("trl")), report_to=[], use_cpu=True, bf16=False),
        train_dataset=Dataset.from_list([{"prompt": "one", "chosen": " two", "rejected": " three"}]),
        processing_class=tokenizer,
    )
    made.precompute_ref_logps = True
    return made


def trl_loss(trainer, name, pairs, terms, alpha=None):
    """The loss of TRL's `_compute_loss`, and the log-probabilities `[2P, seq - 1]` that it is made of."""
    trainer.loss_types, trainer.loss_weights = [name], [1.0]
    trainer.beta, trainer.label_smoothing, trainer.ld_alpha = terms.beta, terms.label_smoothing, alpha
    trainer.args.discopop_tau = terms.discopop_tau
    tokens = torch.cat((pairs.chosen_tokens, pairs.rejected_tokens))
    inputs = sequences(tokens)
    log_probs = spread(torch.cat((pairs.chosen, pairs.rejected)), tokens, inputs["input_ids"].shape[1]).detach()
    inputs |= {"ref_chosen_logps": pairs.reference_chosen, "ref_rejected_logps": pairs.reference_rejected}
    log_probs.requires_grad_()
    return trainer._compute_loss(Answers(log_probs), inputs, return_outputs=False), log_probs


@pytest.mark.parametrize("name", IN_TRL)
def test_costs_and_gradients(trainer, name):
    terms = replace(TERMS, label_smoothing=0.0) if name == "sigmoid" else TERMS  # TRL's sigmoid knows none any more
    pairs = made_pairs()
    tolerance = 1e-6 if name == "exo_pair" else 1e-10  # TRL holds ε in float32 there
    loss, log_probs = trl_loss(trainer, name, pairs, terms)
    chosen, rejected = (tensor.clone().requires_grad_() for tensor in (pairs.chosen, pairs.rejected))
    costs = LOSSES[name](replace(pairs, chosen=chosen, rejected=rejected), terms)
    torch.testing.assert_close(costs.mean(), loss, rtol=tolerance, atol=0)
    costs.mean().backward()
    loss.backward()
    # Every token of an answer has the gradient of its sum.
    theirs = log_probs.grad.sum(1) / torch.cat((pairs.chosen_tokens, pairs.rejected_tokens))
    torch.testing.assert_close(torch.cat((chosen.grad, rejected.grad)), theirs, rtol=tolerance, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in IN_TRL if not PREFERENCE_LOSSES[name].batch_dependent])
def test_each_pair_costs_the_same(trainer, name):
    terms = replace(TERMS, label_smoothing=0.0) if name == "sigmoid" else TERMS
    pairs = made_pairs(seed=5)
    theirs = [trl_loss(trainer, name, cut(pairs, i), terms)[0].item() for i in range(7)]
    ours = LOSSES[name](pairs, terms).tolist()
    assert ours == pytest.approx(theirs, rel=1e-6 if name == "exo_pair" else 1e-10)


def test_trl_knows_no_other_loss(trainer):
    with pytest.raises(ValueError, match="Unknown loss type") as refusal:
        trl_loss(trainer, "none", made_pairs(), TERMS)
    theirs = set(str(refusal.value).split("'")[1::2])
    assert theirs - set(LOSSES) == {"sft", "sigmoid_norm"}
    assert set(LOSSES) - theirs == {"kto_pair", "orpo", "simpo"}


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_length_desensitized_sums(trainer, alpha):
    pairs = made_pairs()
    loss, log_probs = trl_loss(trainer, "sigmoid", pairs, Terms(), alpha)
    # The same tokens in our order: chosen and rejected of each pair in turn, without prompts and padding.
    places = log_probs != 0
    assert places.sum(1).tolist() == [*pairs.chosen_tokens.tolist(), *pairs.rejected_tokens.tolist()]
    numbers = torch.cat((2 * torch.arange(7), 2 * torch.arange(7) + 1))
    answers = numbers.repeat_interleave(places.sum(1))
    sums = desensitized_sums(log_probs[places], answers, 7, alpha).view(7, 2)
    costs = LOSSES["sigmoid"](replace(pairs, chosen=sums[:, 0], rejected=sums[:, 1]), Terms())
    torch.testing.assert_close(costs.mean(), loss, rtol=1e-12, atol=0)


def as_trainer(**attributes):
    """What a method of TRL's reads of its trainer."""
    return SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **attributes)


@pytest.mark.filterwarnings("ignore::Warning")
def test_simpo():
    from trl.experimental.cpo import CPOTrainer

    pairs = made_pairs()
    their = as_trainer(alpha=0.0, beta=0.37, loss_type="simpo", simpo_gamma=0.8, label_smoothing=0.2)
    costs, _, _ = CPOTrainer.cpo_loss(their, pairs.chosen_mean, pairs.rejected_mean)
    torch.testing.assert_close(LOSSES["simpo"](pairs, TERMS), costs, rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("ignore::Warning")
def test_odds_ratio_of_orpo():
    from trl.experimental.orpo import ORPOTrainer

    pairs = made_pairs()
    gained, *_ = ORPOTrainer.odds_ratio_loss(as_trainer(beta=0.37), pairs.chosen_mean, pairs.rejected_mean)
    # TRL makes float32 of what it is given.
    torch.testing.assert_close(0.37 * odds_ratio_loss(pairs), -gained.double(), rtol=1e-5, atol=0)
