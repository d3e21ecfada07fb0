"""Differences of two models, with noise models that are stated."""

import math

import numpy as np
import pytest
import sacrebleu

from llf_core.metrics import ScoredExample, load_metrics, score_answers
from llf_core.metrics import interval as interval_module
from llf_core.metrics.base_metric import BITS_PER_BYTE, LOSS, PERPLEXITY, Measure, mean_statistics, ratio
from llf_core.metrics.interval import Interval, expanded_percentiles, interval, resampled_sums, student_quantile
from llf_core.metrics.paired import Difference, difference, exchange_p_value

PERCENT = Measure("share", "Share", "%")
EXAMPLES, SEEDS, SAMPLES = 200, 100, 1000


def verdicts(pair) -> dict[str, int]:
    """How often each verdict is given over the seeds; `pair` draws the scores of two models."""
    found = [difference(*pair(np.random.default_rng(seed)), seed=seed, samples=SAMPLES) for seed in range(SEEDS)]
    return {name: sum(one.verdict == name for one in found) for name in ("better", "no difference", "worse")}


def graded(draw, gain: float, noise: float):
    """Scores such as ROUGE: examples differ in hardness, and each answer has noise of its own around that."""
    hard = draw.beta(2, 2, EXAMPLES)
    return [np.clip(hard + shift + draw.normal(0, noise, EXAMPLES), 0, 1).tolist() for shift in (0, gain)]


def counted(draw, gains: float, losses: float):
    """Right or wrong: the tuned model rights a share `gains` of the examples and breaks a share `losses`."""
    kind = draw.choice(3, EXAMPLES, p=[gains, losses, 1 - gains - losses])
    same = draw.integers(0, 2, EXAMPLES)
    return np.where(kind == 2, same, kind == 1).tolist(), np.where(kind == 2, same, kind == 0).tolist()


def test_two_identical_models_have_no_difference():
    def greedy(draw):
        scores = draw.random(EXAMPLES).tolist()
        return scores, scores

    assert verdicts(greedy) == {"better": 0, "no difference": 100, "worse": 0}
    one = difference([0.5, 1.0] * 10, [0.5, 1.0] * 10)
    assert (one.mean, one.low, one.high, one.p, one.smallest) == (0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    "pair",
    [lambda draw: graded(draw, 0, 0.15), lambda draw: counted(draw, 0.1, 0.1), lambda draw: counted(draw, 0.01, 0.01)],
    ids=["graded", "right or wrong", "right or wrong, rarely different"],
)
def test_equal_models_whose_answers_are_sampled_differ_in_5_percent(pair):
    """Both models draw their answers from the same distribution: the interval holds 0 in 95 % of evaluations.

    Of 100 evaluations these are 95 ± 2.2, so at least 95 in every other hundred only. Over 600 the standard deviation
    is 0.9 %: 92.5 % is within 3 of them.
    """
    held = 0
    for seed in range(600):
        found = difference(*pair(np.random.default_rng(seed)), seed=seed, samples=500)
        held += found.low <= 0 <= found.high
    assert 0.925 <= held / 600 <= 1


def test_few_examples_of_very_different_length_do_not_make_a_difference():
    """Losses per token of 20 texts, sampled twice by one model: the bootstrap alone holds 0 in 93.2 % of 4,000."""
    held = 0
    for seed in range(400):
        draw = np.random.default_rng(seed)
        tokens, hard = np.ceil(draw.lognormal(3.5, 1.0, 20)), draw.lognormal(0.0, 0.5, 20)
        losses = tokens * hard * draw.lognormal(0.0, 0.15, (2, 20))
        pair = [np.column_stack([one, tokens]) for one in losses]
        found = difference(*pair, PERPLEXITY, seed=seed, samples=500)
        held += found.low <= 0 <= found.high
    assert held / 400 >= 0.945


def test_the_exchange_test_counts_the_exchanges():
    # 2 of the 2^5 exchanges are as far apart as five times 1
    ones, zeros = mean_statistics([1.0] * 5), mean_statistics([0.0] * 5)
    assert exchange_p_value(zeros, ones, ratio, seed=0, samples=20_000) == pytest.approx(2 / 32, abs=0.006)
    assert exchange_p_value(ones, ones, ratio, seed=0, samples=10) == 1


@pytest.mark.parametrize(
    "pair",
    [lambda draw: graded(draw, 0.05, 0.12), lambda draw: counted(draw, 0.05, 0.0)],
    ids=["graded", "right or wrong"],
)
def test_an_improvement_of_5_points_is_found(pair):
    """The standard deviation of the paired differences is at most 0.22 in both, which 200 examples can resolve.

    Graded: √2 · 0.12 = 0.17. Right or wrong with no example lost: √(0.05 · 0.95) = 0.22.
    """
    found = verdicts(pair)
    assert found["better"] >= 90
    assert found["worse"] == 0


def test_an_improvement_that_comes_with_losses_needs_more_examples():
    """15 % righted and 10 % broken are 5 points with a standard deviation of 0.5: found in 3 of 10, and it says so."""
    assert 15 <= verdicts(lambda draw: counted(draw, 0.15, 0.10))["better"] <= 50
    one = difference(*counted(np.random.default_rng(0), 0.15, 0.10), PERCENT)
    # 2.80 · 0.5 / √200 = 9.9 points
    assert one.smallest == pytest.approx(0.099, abs=0.012)


def test_pairs_find_what_two_intervals_do_not():
    base, tuned = graded(np.random.default_rng(1), 0.05, 0.05)
    assert interval(tuned).low < interval(base).high
    assert difference(base, tuned).verdict == "better"
    assert difference(base, tuned, Measure("x", "X", higher_is_better=False)).verdict == "worse"
    assert difference(tuned, base).verdict == "worse"


def test_perplexity_resamples_its_sums():
    draw = np.random.default_rng(2)
    tokens = draw.integers(5, 100, EXAMPLES)
    base = np.column_stack([tokens * draw.normal(2.0, 0.2, EXAMPLES), tokens]).astype(float)
    tuned = base * [0.95, 1]

    found = difference(base, tuned, PERPLEXITY, seed=3)
    wanted = math.exp(tuned[:, 0].sum() / tokens.sum()) - math.exp(base[:, 0].sum() / tokens.sum())
    assert found.mean == pytest.approx(wanted, rel=1e-12)
    assert found.verdict == "better"
    bits = base[:, 0].sum() / tokens.sum() / math.log(2)
    assert interval(base, BITS_PER_BYTE).value == pytest.approx(bits, rel=1e-12)
    places = np.random.default_rng(3).integers(0, EXAMPLES, (10_000, EXAMPLES))  # the same draws for both models
    before, after = (np.exp(one[places, 0].sum(1) / tokens[places].sum(1)) for one in (base, tuned))
    # Student's quantile of 199 degrees of freedom, times √(200 / 199), is at 2.4026 % of a normal.
    wanted = np.quantile(after - before, [0.024026, 0.975974])
    assert (found.low, found.high) == pytest.approx(tuple(wanted), rel=1e-4)


def losses(nats):
    """Sums of 20 examples of 5 tokens, with the same loss of each token."""
    return np.array([[5.0 * nats, 5.0]] * 20)


@pytest.mark.filterwarnings("error")
def test_a_perplexity_beyond_a_float_is_infinite_and_has_no_verdict():
    """exp(709.78) is the largest power of e that a float64 holds."""
    assert interval(losses(709.7), PERPLEXITY).value == pytest.approx(math.exp(709.7), rel=1e-12)
    assert interval(losses(709.8), PERPLEXITY) == Interval(math.inf, None, None, 20)
    one = difference(losses(800.0), losses(2.0), PERPLEXITY)
    assert (one.base, one.mean, one.verdict) == (math.inf, -math.inf, "not finite")
    assert one.sentence == "not finite: infinity and 7.389 cannot be compared, 20 examples"
    both = difference(losses(800.0), losses(900.0), PERPLEXITY)
    assert (math.isnan(both.mean), both.verdict) == (True, "not finite")
    assert difference(losses(800.0), losses(2.0), LOSS).verdict == "better"


@pytest.mark.filterwarnings("error")
def test_perplexities_close_to_the_largest_float_are_compared_in_short_numbers():
    base = np.array([[700.0 + number, 1] for number in range(20)])  # of some samples it is infinite
    found = difference(base, losses(2.0), PERPLEXITY)
    assert found.mean == pytest.approx(7.38905609893065 - math.exp(709.5), rel=1e-9)
    assert found.verdict == "better"
    assert found.sentence.startswith("better: -1.4e308, 95 % interval -")
    assert len(found.sentence) < 80


def test_drawing_how_often_each_score_occurs_is_drawing_examples(monkeypatch):
    scores = ([1.0] * 60 + [0.0] * 140, [1.0] * 75 + [0.0] * 125)
    found = difference(*scores, samples=100_000)
    monkeypatch.setattr(interval_module, "SAME_ENOUGH", 1000)
    plain = difference(*scores, samples=100_000)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.0051)  # one example
    assert found.smallest == pytest.approx(plain.smallest, rel=0.01)
    # The standard error of 15 of 200: 2.80 · √(0.075 · 0.925 / 200).
    assert found.smallest == pytest.approx(2.8016 * math.sqrt(0.075 * 0.925 / 200), rel=0.01)


def test_corpus_bleu_of_each_sample_is_that_of_sacrebleu(monkeypatch):
    monkeypatch.setattr(interval_module, "SAME_ENOUGH", 1000)  # draws examples, also equal ones
    references = [f"the number {place} is {'even' if place % 2 == 0 else 'odd'} and small" for place in range(30)]
    answers = [one.replace("small", "large") if place % 3 else one for place, one in enumerate(references)]
    (metric,) = load_metrics(["bleu"])
    found = score_answers(metric, answers, [ScoredExample(reference=one) for one in references])
    values = metric.total(resampled_sums(found.statistics, 5, 20))
    places = np.random.default_rng(5).integers(0, 30, (20, 30))
    wanted = [
        sacrebleu.corpus_bleu([answers[one] for one in row], [[references[one] for one in row]]).score for row in places
    ]
    assert values == pytest.approx(wanted, rel=1e-12)


def test_examples_that_one_model_has_no_score_for_are_left_out():
    found = difference([1.0, None, 0.0, 0.0], [1.0, 1.0, None, 1.0])
    assert (found.count, found.base, found.tuned, found.mean) == (2, 0.5, 1.0, 0.5)
    with pytest.raises(ValueError, match=r"\[2, 2\] and \[3, 2\]"):
        difference([1.0, 0.0], [1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="not finite"):
        difference([math.nan], [1.0])


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            Difference(0.5, 0.541, 0.041, 0.012, 0.07, 0.01, "better", 200, 0.04, "%"),
            "better: +4.1 points, 95 % interval 1.2 to 7.0, 200 examples",
        ),
        (
            Difference(30.0, 29.5, -0.5, -2.04, 1.0, 0.4, "no difference", 1200, 2.2, "points"),
            (
                "no difference: -0.5 points, 95 % interval -2.0 to 1.0, 1,200 examples. A difference below 2.2 points "
                "needs more examples"
            ),
        ),
        (
            Difference(3.21, 3.1, -0.11, -0.2, -0.02, 0.01, "better", 50, 0.1, ""),
            "better: -0.110, 95 % interval -0.200 to -0.020, 50 examples",
        ),
        (
            Difference(120.0, 180.0, 60.0, 20.0, 100.0, 0.01, "worse", 50, 50.0, "words"),
            "worse: +60 words, 95 % interval 20 to 100, 50 examples",
        ),
        (
            difference([0.0], [1.0], PERCENT),
            "too few examples: 1 of at least 10",
        ),
        (
            difference([None], [1.0]),
            "too few examples: 0 of at least 10",
        ),
        (
            difference([0.5] * 20, [0.5] * 20, PERCENT),
            "no difference: +0.0 points, 95 % interval 0.0 to 0.0, 20 examples",
        ),
    ],
)
def test_the_sentence(found, sentence):
    assert found.sentence == sentence


def test_intervals_of_one_value():
    assert interval([1.0] * 8 + [0.0] * 2) == Interval(
        0.8, pytest.approx(0.4902, abs=5e-5), pytest.approx(0.9433, abs=5e-5), 10
    )
    scores = np.random.default_rng(0).normal(5, 1, 400).tolist()
    found = interval(scores)
    assert found.value == pytest.approx(np.mean(scores))
    error = np.std(scores) / 20
    assert (found.value - found.low) / error == pytest.approx(1.96, abs=0.1)
    assert (found.high - found.value) / error == pytest.approx(1.96, abs=0.1)
    assert interval([]) == Interval(None, None, None, 0)
    assert interval([0.3, None]) == Interval(0.3, None, None, 1)


def test_few_examples_widen_the_interval():
    for freedom in (*range(1, 12), 19, 199):
        quantile = student_quantile(freedom)
        # Within the quantiles lie 95 % of the density. The substitution x = √n·tan(a) makes the range finite.
        limit = math.atan(quantile / math.sqrt(freedom))
        angles = np.linspace(-limit, limit, 200_001)
        density = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(math.pi)
        inside = density * np.trapezoid(np.cos(angles) ** (freedom - 1), angles)
        assert inside == pytest.approx(0.95, abs=1e-4)
    values = np.linspace(0, 1, 100_001)
    assert expanded_percentiles(values, 10) == pytest.approx((0.00856, 0.99144), abs=1e-4)
    assert expanded_percentiles(values, 10**6) == pytest.approx((0.025, 0.975), abs=1e-4)
