"""What a metric returns is checked."""

import numpy as np
import pytest

from llf_core.config.declaration import MetricDeclaration
from llf_core.metrics import Metric, MetricError, ScoredExample, score_answers


class Given(Metric):
    """Returns what a test says."""

    def __init__(self, returns, **traits):
        super().__init__(MetricDeclaration(name="given", label="Given", **traits))
        self.returns = returns

    def scores(self, answers, examples):
        if isinstance(self.returns, Exception):
            raise self.returns
        return self.returns(answers, examples) if callable(self.returns) else self.returns


EXAMPLES = [ScoredExample(reference="x"), ScoredExample(), ScoredExample(reference="z")]


@pytest.mark.parametrize(
    ("returns", "sentence"),
    [
        (ZeroDivisionError("division by zero"), r"The metric given raised ZeroDivisionError: division by zero\."),
        ([1.0], r"returned 1 values for 3 answers\. Expected one score for each\."),
        (0.5, r"returned a float for 3 answers\."),
        ([1.0, float("nan"), 1.0], r'returned nan\. Expected a finite number, or None, on the answer "second"\.'),
        ([1.0, 1.0, 10**400], r'returned inf\. Expected a finite number, or None, on the answer "third"\.'),
        (["good", 1.0, 1.0], r"returned 'good'\. Expected a number, or None, on the answer \"first\"\."),
        ([np.ones(2), 1.0, 1.0], r"Expected a number, or None, on"),
    ],
)
def test_a_wrong_result_is_a_sentence(returns, sentence):
    with pytest.raises(MetricError, match=sentence):
        score_answers(Given(returns, needs_reference=False), ["first", "second", "third"], EXAMPLES)


def test_wrong_statistics_are_a_sentence():
    metric = Given([1.0, 1.0, 1.0], needs_reference=False)
    metric.statistics = lambda *_: np.ones((2, 2))
    with pytest.raises(MetricError, match=r"returned statistics of shape \[2, 2\] for 3 answers"):
        score_answers(metric, ["first", "second", "third"], EXAMPLES)
    metric.statistics = lambda *_: np.zeros((3, 2))
    with pytest.raises(MetricError, match="has the value nan over 3 scores"):
        score_answers(metric, ["first", "second", "third"], EXAMPLES)


def test_examples_without_a_score_do_not_count():
    found = score_answers(Given([np.float32(1), None, True], needs_reference=False), ["a", "b", "c"], EXAMPLES)
    assert (found.scores, found.value, found.count) == ((1.0, None, 1.0), 1.0, 2)
    assert found.statistics.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_a_metric_with_references_is_asked_about_examples_that_have_one():
    found = score_answers(Given(lambda answers, _: [len(one) for one in answers]), ["a", "bb", "ccc"], EXAMPLES)
    assert (found.scores, found.value, found.count) == ((1, None, 3), 2, 2)
    nothing = score_answers(Given([]), ["a"], [ScoredExample()])
    assert (nothing.scores, nothing.value, nothing.count) == ((None,), None, 0)
    with pytest.raises(ValueError, match="2 answers and 1 examples"):
        score_answers(Given([]), ["a", "b"], [ScoredExample()])
