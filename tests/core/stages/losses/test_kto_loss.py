"""KTO against its formula in plain numbers, and against TRL's own trainer."""

from math import exp

import pytest
import torch

from llf_core.stages.preference_losses import kl_estimate, kto
from tests.core.stages.losses.made_up import Answers, sequences, spread
from tests.tiny import tiny_llama, tiny_tokenizer

GOOD = torch.tensor([True, False, False, True, True, False])
RATIO = torch.tensor([0.5, -2.0, 3.0, -1.0, 40.0, -0.1], dtype=torch.float64)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, 0.25)])
@pytest.mark.parametrize("kl", [0.0, 0.8])
def test_is_its_formula(kl, weights):
    expected = []
    for ratio, good in zip(RATIO.tolist(), GOOD.tolist(), strict=True):
        # The value of an outcome is its share against the reference point: w / (w + z).
        w, z = exp(0.3 * ratio), exp(0.3 * kl)
        expected.append(weights[0] * (1 - w / (w + z)) if good else weights[1] * (1 - z / (w + z)))
    costs = kto(RATIO, torch.tensor(kl, dtype=torch.float64), GOOD, 0.3, weights)
    assert costs.tolist() == pytest.approx(expected, rel=1e-12)


def test_equal_models_cost_half():
    assert kto(torch.zeros(6), kl_estimate(torch.zeros(6)), GOOD, 0.1).tolist() == [0.5] * 6
    assert kto(torch.zeros(2), 0.0, GOOD[:2], 0.1, (3.0, 5.0)).tolist() == [1.5, 2.5]


def test_gradients():
    assert torch.autograd.gradcheck(
        lambda ratio: kto(ratio, torch.tensor(0.7), GOOD, 0.3, (1.5, 0.5)), [RATIO.clone().requires_grad_()]
    )


@pytest.mark.parametrize("good", [True, False])
def test_only_one_kind_of_answers(good):
    judged = torch.full((6,), good)
    costs = kto(RATIO, 0.4, judged, 0.3, (2.0, 3.0))
    sign = -1.0 if good else 1.0
    expected = (2.0 if good else 3.0) / (1.0 + torch.exp(-sign * 0.3 * (RATIO - 0.4)))
    torch.testing.assert_close(costs, expected)


def test_far_values_stay_finite():
    ratio = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    good = torch.tensor([True, True, False, False])
    costs = kto(ratio, 1e4, good, 1.0)
    costs.sum().backward()
    assert costs.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.5])
    assert ratio.grad.isfinite().all()


def test_the_estimate_is_a_mean_that_is_never_below_zero():
    assert kl_estimate(torch.tensor([3.0, -1.0])).item() == 1.0
    assert kl_estimate(torch.tensor([-3.0, 1.0])).item() == 0.0


def test_no_gradient_flows_through_the_estimate():
    assert not kl_estimate(torch.tensor([3.0, -1.0], requires_grad=True)).requires_grad


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """TRL's trainer on a tiny model, to be told the log-probabilities of the reference."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    tokenizer = tiny_tokenizer()
    rows = [{"prompt": "one", "completion": f" {word}", "label": word == "two"} for word in ("two", "three")]
    made = KTOTrainer(
        tiny_llama(tokenizer),
        ref_model=tiny_llama(tokenizer, seed=1),
        args=KTOConfig(
            str(tmp_path_factory.mktemp("trl")), report_to=[], use_cpu=True, bf16=False, per_device_train_batch_size=2
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    made.precompute_ref_logps = True
    return made


@pytest.mark.parametrize("drift", [1.0, -1.0])
def test_trl_makes_the_same_of_it(trainer, drift):
    generator = torch.Generator().manual_seed(0)
    tokens, mismatched_tokens = torch.randint(1, 9, (2, 6), generator=generator)
    reference, mismatched_reference = -3.0 * torch.rand(2, 6, generator=generator, dtype=torch.float64) - 1.0
    noise = torch.randn(6, generator=generator, dtype=torch.float64)
    inputs, mismatched = sequences(tokens), sequences(mismatched_tokens)
    widths = [given["input_ids"].shape[1] for given in (inputs, mismatched)]
    log_probs = spread(reference + noise, tokens, widths[0]).requires_grad_()
    mismatched_log_probs = spread(mismatched_reference + drift + noise, mismatched_tokens, widths[1])
    trainer.beta, trainer.desirable_weight, trainer.undesirable_weight = 0.3, 1.5, 0.5
    # It asks for the mismatched answers first.
    loss = trainer._compute_loss(
        Answers(mismatched_log_probs, log_probs),
        inputs
        | {f"KL_{key}": value for key, value in mismatched.items()}
        | {"label": GOOD, "ref_logps": reference, "ref_KL_logps": mismatched_reference},
        return_outputs=False,
    )
    loss.backward()
    kl = kl_estimate(mismatched_log_probs.sum(1) - mismatched_reference)
    assert (kl > 0.0) == (drift > 0.0)
    ratio = (log_probs.detach().sum(1) - reference).requires_grad_()
    costs = kto(ratio, kl, GOOD, 0.3, (1.5, 0.5))
    torch.testing.assert_close(costs.mean(), loss, rtol=1e-12, atol=0)
    costs.mean().backward()
    torch.testing.assert_close(ratio.grad, log_probs.grad.sum(1) / tokens, rtol=1e-10, atol=1e-14)
