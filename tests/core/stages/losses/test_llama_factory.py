"""LLaMA-Factory's own losses of the same answers; `make_loss_goldens.py` has it make them."""

import json
from pathlib import Path

import pytest
import torch

from llf_core.stages.preference_losses import (
    LOSSES,
    Pairs,
    RunningMean,
    Terms,
    bco,
    desensitized_sums,
    kl_estimate,
    kto,
)
from tests.core.stages.llama_factory.make_loss_goldens import IGNORED, KTO, OLDER, PAIRS, SETTINGS

GOLDENS = json.loads((Path(__file__).parents[1] / "llama_factory" / "losses.json").read_text())
# LLaMA-Factory makes float32 of all logits.
TOLERANCE = 2e-6


def token_log_probs(logits, ids, labels):
    """Log-probabilities of each answer's tokens by a table of logits."""
    log_probs = torch.tensor(logits, dtype=torch.float64).log_softmax(-1)
    found = []
    for sequence, learned in zip(ids, labels, strict=True):
        places = [place for place, label in enumerate(learned) if label != IGNORED]
        found.append(torch.stack([log_probs[sequence[place - 1], sequence[place]] for place in places]))
    return found


def ratios(prefix):
    """`[B]`, log-ratios of the judged answers, or with the prefix `kl_` of the mismatched ones."""
    ids, labels = (GOLDENS["judged"][f"{prefix}{key}"] for key in ("input_ids", "labels"))
    policy, reference = (token_log_probs(GOLDENS[model], ids, labels) for model in ("policy", "reference"))
    return torch.stack([(mine - theirs).sum() for mine, theirs in zip(policy, reference, strict=True)])


def pairs_of(numbers, alpha=None):
    """Some of the pairs; the policy's tokens weighted by α."""
    order = [place for number in numbers for place in (number, PAIRS + number)]
    ids, labels = ([GOLDENS["pairs"][key][place] for place in order] for key in ("input_ids", "labels"))
    policy, reference = (token_log_probs(GOLDENS[model], ids, labels) for model in ("policy", "reference"))
    counts = torch.tensor([len(one) for one in policy])
    answers = torch.arange(len(order)).repeat_interleave(counts)
    weighted = desensitized_sums(torch.cat(policy), answers, len(numbers), 1.0 if alpha is None else alpha)
    plain = torch.stack([one.sum() for one in reference])
    columns = [one.view(-1, 2).unbind(1) for one in (weighted, plain, counts)]
    return Pairs(*(half for column in columns for half in column))


def terms_of(settings):
    return Terms(
        beta=settings.get("pref_beta", 0.1),
        label_smoothing=settings.get("dpo_label_smoothing", 0.0),
        gamma=settings.get("simpo_gamma", 0.5),
    )


def name_of(settings):
    return " ".join(map(str, settings.values())) or "defaults"


def test_the_goldens_are_those_of_the_script():
    for part, settings in (("preference", SETTINGS), ("kto", KTO), ("older_trl", OLDER)):
        assert [one["settings"] for one in GOLDENS[part]] == list(settings)


@pytest.mark.parametrize("golden", GOLDENS["preference"], ids=lambda golden: name_of(golden["settings"]))
def test_preference(golden):
    settings, terms = golden["settings"], terms_of(golden["settings"])
    loss, running = LOSSES[settings["pref_loss"]], RunningMean()
    for numbers, expected in zip((range(3), range(3, PAIRS)), golden["losses"], strict=True):
        pairs = pairs_of(numbers, settings.get("ld_alpha"))
        costs = loss(pairs, terms)
        if weight := settings.get("pref_bco_weight"):
            # Its mean is one of micro-batches, the present one among them.
            running.add(terms.beta * torch.cat((pairs.chosen_ratio, pairs.rejected_ratio)).mean(), 1)
            costs = (costs + weight * bco(pairs, terms, running.mean)) / (1.0 + weight)
        assert costs.mean().item() == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("golden", GOLDENS["kto"], ids=lambda golden: name_of(golden["settings"]))
def test_kto(golden):
    settings, kl = golden["settings"], kl_estimate(ratios("kl_"))
    assert kl.item() == pytest.approx(golden["kl"], rel=TOLERANCE)
    assert kl > 0.1
    weights = settings.get("kto_chosen_weight", 1.0), settings.get("kto_rejected_weight", 1.0)
    good = torch.tensor(GOLDENS["judged"]["kto_tags"])
    costs = kto(ratios(""), kl, good, settings.get("pref_beta", 0.1), weights)
    assert costs.mean().item() == pytest.approx(golden["loss"], rel=TOLERANCE)


@pytest.mark.parametrize("golden", GOLDENS["older_trl"], ids=lambda golden: name_of(golden["settings"]))
def test_what_llama_factory_means_by_hinge_ipo_and_kto_pair(golden):
    # Its own are DPO's sigmoid loss, whatever they are called; this is what TRL had when it was written.
    costs = LOSSES[golden["settings"]["pref_loss"]](pairs_of(range(PAIRS)), terms_of(golden["settings"]))
    expected = golden["costs"]
    if len(expected) == 2 * PAIRS:  # a cost an answer there, a cost a pair here
        expected = [
            0.5 * (chosen + rejected) for chosen, rejected in zip(expected[:PAIRS], expected[PAIRS:], strict=True)
        ]
    assert costs.tolist() == pytest.approx(expected, rel=1e-10)
