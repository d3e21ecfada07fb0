"""Each loss against its formula in plain numbers, written with ratios of probabilities instead of log-sigmoids."""

import math
import subprocess
import sys
from dataclasses import replace
from itertools import product
from math import exp, log
from statistics import fmean

import pytest
import torch

from llf_core.config.declarations.stages.dpo import LEVEL_TAU, PREFERENCE_LOSSES
from llf_core.stages.preference_losses import LOSSES, Pairs, Terms, odds_ratio_loss, rank_differences
from tests.core.stages.losses.made_up import FIELDS, made_pairs, rows

TERMS = Terms(beta=0.37, label_smoothing=0.2, gamma=0.8, discopop_tau=0.25)


def ratios(row, t):
    """`(π/π_ref)^β` of both answers."""
    chosen, rejected, reference_chosen, reference_rejected, _, _ = row
    return exp(chosen - reference_chosen) ** t.beta, exp(rejected - reference_rejected) ** t.beta


def preferred(w, v, t):
    """The likelihood of a label that is wrong with probability ε, where answers are worth w and v."""
    return -(1 - t.label_smoothing) * log(w / (w + v)) - t.label_smoothing * log(v / (w + v))


def sigmoid(row, t):
    return preferred(*ratios(row, t), t=t)


def hinge(row, t):
    w, v = ratios(row, t)
    return max(0.0, 1.0 - log(w / v))


def ipo(row, t):
    chosen, rejected, reference_chosen, reference_rejected, chosen_tokens, rejected_tokens = row
    h = (chosen - reference_chosen) / chosen_tokens - (rejected - reference_rejected) / rejected_tokens
    return h * h - h / t.beta + 1 / (4 * t.beta * t.beta)


def orpo(row, t):
    chosen, rejected, _, _, chosen_tokens, rejected_tokens = row
    p, q = exp(chosen) ** (1 / chosen_tokens), exp(rejected) ** (1 / rejected_tokens)
    odds_ratio = (p / (1 - p)) / (q / (1 - q))
    return -log(p) + t.beta * log((1 + odds_ratio) / odds_ratio)


def simpo(row, t):
    chosen, rejected, _, _, chosen_tokens, rejected_tokens = row
    w, v = exp(chosen) ** (t.beta / chosen_tokens), exp(rejected) ** (t.beta / rejected_tokens)
    return preferred(w, v * exp(t.gamma), t)


def robust(row, t):
    w, v = ratios(row, t)
    right, wrong = log(1 + v / w), log(1 + w / v)
    return ((1 - t.label_smoothing) * right - t.label_smoothing * wrong) / (1 - 2 * t.label_smoothing)


def exo_pair(row, t):
    w, v = ratios(row, t)
    q = w / (w + v)
    return q * log(q / (1 - t.label_smoothing)) + (1 - q) * log((1 - q) / t.label_smoothing)


def apo_zero(row, t):
    w, v = ratios(row, t)
    return 1 / (1 + w) + v / (1 + v)


def apo_down(row, t):
    w, v = ratios(row, t)
    return w / (1 + w) + v / (w + v)


def sppo_hard(row, t):
    w, v = ratios(row, t)
    return ((log(w) - 0.5) ** 2 + (log(v) + 0.5) ** 2) / t.beta**2


def nca_pair(row, t):
    w, v = ratios(row, t)
    return log((1 + w) / w) + log(1 + w) / 2 + log(1 + v) / 2


def bco_pair(row, t):
    w, v = ratios(row, t)
    return log((1 + w) / w) + log(1 + v)


def discopop(row, t):
    w, v = ratios(row, t)
    share = 1 / (1 + (v / w) ** (1 / t.discopop_tau))
    return (1 - share) * log(1 + v / w) + share * v / w


SINGLE = (
    sigmoid, hinge, ipo, orpo, simpo, robust, exo_pair, apo_zero, apo_down, sppo_hard, nca_pair, bco_pair, discopop,
)  # fmt: skip


def kto_pair(all_rows, t):
    worth = [ratios(row, t) for row in all_rows]
    of_chosen, of_rejected = (max(1.0, exp(fmean(log(one[i]) for one in worth))) for i in (0, 1))
    return [0.5 * of_rejected / (of_rejected + w) + 0.5 * v / (of_chosen + v) for w, v in worth]


def by_rank(values, others, t):
    costs = [0.0] * len(values)
    order = sorted(range(len(values)), key=values.__getitem__)
    for place, other in zip(order, sorted(others), strict=True):
        costs[place] = preferred(exp(t.beta * values[place]), exp(t.beta * other), t)
    return costs


def aot(all_rows, t):
    return by_rank([row[0] - row[1] for row in all_rows], [row[2] - row[3] for row in all_rows], t)


def aot_unpaired(all_rows, t):
    return by_rank([row[0] - row[2] for row in all_rows], [row[1] - row[3] for row in all_rows], t)


MIXED = (kto_pair, aot, aot_unpaired)


def closed(name, pairs, terms):
    """The costs by the formulas above."""
    for function in SINGLE:
        if function.__name__ == name:
            return [function(row, terms) for row in rows(pairs)]
    return next(function for function in MIXED if function.__name__ == name)(rows(pairs), terms)


def test_every_loss_has_a_formula_here():
    assert {function.__name__ for function in (*SINGLE, *MIXED)} == set(LOSSES)
    assert {name for name, loss in PREFERENCE_LOSSES.items() if loss.batch_dependent} == {
        function.__name__ for function in MIXED
    }


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_is_its_formula(name, seed):
    pairs = made_pairs(seed=seed)
    costs = LOSSES[name](pairs, TERMS)
    assert costs.shape == (7,)
    assert costs.tolist() == pytest.approx(closed(name, pairs, TERMS), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_is_its_formula_in_float32(name):
    pairs = made_pairs(dtype=torch.float32)
    costs = LOSSES[name](pairs, TERMS)
    assert costs.dtype == torch.float32
    assert costs.tolist() == pytest.approx(closed(name, pairs, TERMS), rel=3e-5, abs=3e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_defaults_are_those_of_llama_factory_and_trl(name):
    terms = Terms() if name != "exo_pair" else Terms(label_smoothing=1e-3)
    assert (terms.beta, terms.gamma, terms.discopop_tau) == (0.1, 0.5, 0.05)
    pairs = made_pairs()
    assert LOSSES[name](pairs, terms).tolist() == pytest.approx(closed(name, pairs, terms), rel=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name):
    # KTO's z has no gradient; rejected log-ratios below 0 on the mean, and chosen ones too, keep it at 0.
    pairs = made_pairs()
    if name == "kto_pair":
        pairs = replace(pairs, chosen=pairs.chosen - 3.0, rejected=pairs.rejected - 3.0)
        assert max(pairs.chosen_ratio.mean(), pairs.rejected_ratio.mean()) < -0.1
    inputs = [getattr(pairs, field).clone().requires_grad_() for field in FIELDS]

    def costs(*given):
        return LOSSES[name](replace(pairs, **dict(zip(FIELDS, given, strict=False))), TERMS)

    if not PREFERENCE_LOSSES[name].needs_reference:
        inputs = inputs[:2]
    assert torch.autograd.gradcheck(costs, inputs)


def test_no_gradient_flows_through_the_divergence_of_kto_pair():
    pairs = made_pairs()
    pairs = replace(pairs, chosen=(pairs.chosen + 3.0).requires_grad_(), rejected=pairs.rejected + 3.0)
    z = pairs.rejected_ratio.mean()
    assert min(z, pairs.chosen_ratio.mean()) > 0.1
    (gradient,) = torch.autograd.grad(LOSSES["kto_pair"](pairs, TERMS).sum(), pairs.chosen)
    kept = torch.sigmoid(TERMS.beta * (pairs.chosen_ratio - z))
    torch.testing.assert_close(gradient, -0.5 * TERMS.beta * kept * (1 - kept))


# What a pair costs where the policy is the reference.
START = {
    "sigmoid": log(2), "hinge": 1.0, "ipo": 25.0, "kto_pair": 0.5, "robust": log(2), "apo_zero": 1.0, "apo_down": 1.0,
    "sppo_hard": 50.0, "nca_pair": 2 * log(2), "bco_pair": 2 * log(2), "discopop": 0.5 * (log(2) + 1), "aot": log(2),
    "aot_unpaired": log(2), "exo_pair": log(0.5) - 0.5 * log(0.1 * 0.9),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, loss in PREFERENCE_LOSSES.items() if loss.needs_reference])
def test_starts_where_the_paper_says(name):
    pairs = made_pairs(dtype=torch.float32)
    pairs = replace(pairs, chosen=pairs.reference_chosen, rejected=pairs.reference_rejected)
    costs = LOSSES[name](pairs, Terms(beta=0.1, label_smoothing=0.1))
    assert costs.tolist() == pytest.approx([START[name]] * 7, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_pair_of_the_same_answer_twice_is_worth_no_choice(name):
    pairs = made_pairs(count=1)
    pairs = replace(
        pairs, rejected=pairs.chosen, reference_rejected=pairs.reference_chosen, rejected_tokens=pairs.chosen_tokens
    )
    terms = Terms(beta=0.1, label_smoothing=0.1)
    (cost,) = LOSSES[name](pairs, terms).tolist()
    expected = {
        **{name: START[name] for name in ("sigmoid", "hinge", "ipo", "robust", "exo_pair", "discopop", "aot")},
        "aot_unpaired": log(2),
        "orpo": -pairs.chosen_mean.item() + 0.1 * log(2),
        "simpo": 0.9 * log(1 + exp(0.5)) + 0.1 * log(1 + exp(-0.5)),
    }
    assert cost == pytest.approx(expected.get(name, closed(name, pairs, terms)[0]), rel=1e-9)


@pytest.mark.parametrize(("tau", "sign"), [(0.05, 1), (LEVEL_TAU, 0), (0.2, -1)])
def test_discopop_begins_uphill_where_its_tau_is_small(tau, sign):
    chosen = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    tokens = torch.ones(1, dtype=torch.long)
    pairs = Pairs(chosen, zero, zero, zero, tokens, tokens)
    (slope,) = torch.autograd.grad(LOSSES["discopop"](pairs, Terms(beta=0.1, discopop_tau=tau)).sum(), chosen)
    assert slope.item() == pytest.approx(0.1 * ((1 - log(2)) / (4 * tau) - 0.75), abs=1e-12)
    assert slope.sign().item() == sign or abs(slope.item()) < 1e-12


FAR = [-1e4, -1.0, -1e-9, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_far_values_stay_finite(name, dtype):
    all_of_them = list(product(FAR, FAR, (-1e4, -1.0), (-1e4, -1.0), (1, 1000), (1, 1000)))
    columns = [torch.tensor(column) for column in zip(*all_of_them, strict=True)]
    values = [column.to(dtype) for column in columns[:4]]
    for beta in (0.1, 2.0):
        pairs = Pairs(values[0].clone().requires_grad_(), values[1].clone().requires_grad_(), *values[2:], *columns[4:])
        costs = LOSSES[name](pairs, Terms(beta=beta, label_smoothing=0.1))
        costs.sum().backward()
        assert costs.isfinite().all()
        assert pairs.chosen.grad.isfinite().all()
        assert pairs.rejected.grad.isfinite().all()


def one(chosen, rejected, reference_chosen=-10.0, reference_rejected=-10.0, tokens=(1, 1)):
    """A single pair."""
    values = (torch.tensor([value]) for value in (chosen, rejected, reference_chosen, reference_rejected))
    return Pairs(*values, *(torch.tensor([count]) for count in tokens))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # βh = 0.1 · -10,000: a line of slope -1, and whatever is bounded is 1 or 2.
        ("sigmoid", 0.9 * 1000), ("hinge", 1001.0), ("robust", 0.9 / 0.8 * 1000), ("kto_pair", 0.5 * (1 + 0.5)),
        ("apo_zero", 1 + 0.5), ("apo_down", 0 + 1.0), ("nca_pair", 1000 + 0.5 * log(2)), ("bco_pair", 1000 + log(2)),
        ("discopop", 1000.0), ("aot", 0.9 * 1000), ("aot_unpaired", 0.9 * 1000), ("exo_pair", -log(0.1)),
        ("sppo_hard", 10005.0**2 + 25.0), ("ipo", 10005.0**2),
    ],
)  # fmt: skip
def test_a_chosen_answer_that_has_become_impossible(name, expected):
    cost = LOSSES[name](one(-10_010.0, -10.0), Terms(label_smoothing=0.1))
    assert cost.item() == pytest.approx(expected, rel=1e-5)


def test_odds_of_what_is_certain():
    # Float32 has nothing between 1 - 2⁻²³ and 1 that odds could be made of: log odds end at 23 ln 2.
    pairs = one(0.0, log(0.5))
    assert odds_ratio_loss(pairs).item() == pytest.approx(2**-23, rel=1e-3)
    assert odds_ratio_loss(one(log(0.5), 0.0)).item() == pytest.approx(23 * log(2), rel=1e-6)
    # What is nearly certain has exact odds: 1 - P = 1e-5 - 5e-11.
    assert odds_ratio_loss(one(log(0.5), -1e-5)).item() == pytest.approx(-log(1e-5) - 5e-6, abs=2e-5)
    assert odds_ratio_loss(one(0.0, 0.0)).item() == pytest.approx(log(2), rel=1e-6)


def test_orpo_is_its_parts():
    pairs = made_pairs()
    parts = 0.3 * odds_ratio_loss(pairs) - pairs.chosen_mean
    torch.testing.assert_close(LOSSES["orpo"](pairs, Terms(beta=0.3)), parts)


@pytest.mark.parametrize("name", LOSSES)
def test_nan_is_news(name):
    pairs = made_pairs(count=3)
    pairs = replace(pairs, chosen=torch.tensor([-1.0, math.nan, -2.0], dtype=torch.float64))
    assert LOSSES[name](pairs, TERMS).isnan().any()


@pytest.mark.parametrize("name", LOSSES)
def test_an_answer_without_tokens_divides_nothing_by_zero(name):
    costs = LOSSES[name](one(0.0, -3.0, 0.0, -2.5, tokens=(0, 4)), Terms(label_smoothing=0.1))
    assert costs.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_only_those_that_need_a_reference_ask_for_one(name):
    pairs = replace(made_pairs(), reference_chosen=None, reference_rejected=None)
    if PREFERENCE_LOSSES[name].needs_reference:
        with pytest.raises(ValueError, match="compares the policy with a reference"):
            LOSSES[name](pairs, TERMS)
    else:
        assert LOSSES[name](pairs, TERMS).tolist() == LOSSES[name](made_pairs(), TERMS).tolist()


@pytest.mark.parametrize("name", LOSSES)
def test_the_table_tells_what_a_loss_looks_at(name):
    loss, traits, pairs = LOSSES[name], PREFERENCE_LOSSES[name], made_pairs()
    costs = loss(pairs, TERMS)
    longer = replace(pairs, chosen_tokens=2 * pairs.chosen_tokens)
    assert torch.equal(loss(longer, TERMS), costs) == (not traits.averages)
    if name != "exo_pair":  # knows no such loss
        surer = loss(pairs, replace(TERMS, label_smoothing=0.0))
        assert torch.equal(surer, costs) == (not traits.smooths)
    alone = [loss(cut(pairs, i), TERMS) for i in range(7)]
    assert torch.allclose(torch.cat(alone), costs) == (not traits.batch_dependent)


def cut(pairs, i):
    """The pair number i."""
    return Pairs(*(getattr(pairs, name)[i : i + 1] for name in (*FIELDS, "chosen_tokens", "rejected_tokens")))


@pytest.mark.parametrize("noise", [-0.1, 0.5, 0.6, math.nan])
def test_robust_refuses_a_share_that_it_would_divide_by_zero(noise):
    with pytest.raises(ValueError, match=r"from 0 to below 0\.5"):
        LOSSES["robust"](made_pairs(), Terms(label_smoothing=noise))


@pytest.mark.parametrize("noise", [0.0, 1.0, math.nan])
def test_exo_refuses_labels_without_doubt(noise):
    with pytest.raises(ValueError, match="exo_pair takes the logarithm of label_smoothing"):
        LOSSES["exo_pair"](made_pairs(), Terms(label_smoothing=noise))


def test_robust_is_unbiased():
    # Of pairs that a share ε has the wrong way round, the mean cost is the true one of DPO.
    pairs, noise = made_pairs(), 0.3
    swapped = Pairs(
        pairs.rejected, pairs.chosen, pairs.reference_rejected, pairs.reference_chosen, pairs.rejected_tokens,
        pairs.chosen_tokens,
    )  # fmt: skip
    terms = Terms(beta=0.4, label_smoothing=noise)
    right, wrong = (LOSSES["robust"](given, terms) for given in (pairs, swapped))
    torch.testing.assert_close(
        (1 - noise) * right + noise * wrong, LOSSES["sigmoid"](pairs, Terms(beta=0.4)), rtol=1e-10, atol=1e-12
    )


def test_values_are_matched_by_rank():
    assert rank_differences(torch.tensor([5.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, 4.0])).tolist() == [1.0, 1.0, 1.0]
    assert rank_differences(torch.tensor([5.0, 1.0, 3.0]), torch.tensor([4.0, 0.5, 2.5])).tolist() == [1.0, 0.5, 0.5]


def test_the_table_is_read_without_torch():
    code = (
        "import sys\n"
        "from llf_core.stages.preference_losses import LOSSES, Terms\n"
        "print(len(LOSSES), [name for name in ('torch', 'transformers', 'trl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "16 []\n"
