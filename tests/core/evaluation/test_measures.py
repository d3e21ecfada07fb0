"""What an evaluation has no value for: no answer, as where every prompt is too long, or a run that was deleted."""

import math

import pytest

from llf_core.chat.target import Target
from llf_core.evaluation.comparison import measure_of_metric
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.examples import ExampleReader
from llf_core.evaluation.request import VALIDATION, EvaluationRequest
from llf_core.evaluation.worker_process import no_progress
from llf_core.metrics import load_metrics
from llf_core.runs.evaluations import ExampleResult


def example(index, **answered):
    return ExampleResult(index, "rows", ({"role": "user", "content": "?"},), "It is 1.", tokens=3, nll=1.0, **answered)


@pytest.mark.parametrize("name", ["bleu", "chrf", "exact_match", "f1"])
def test_a_metric_without_a_single_answer_has_no_value(name):
    (metric,) = load_metrics([name])
    measure = measure_of_metric(metric)
    unanswered = [example(0), example(1)]
    assert measure.value(unanswered) is None
    assert not measure.statistics(unanswered).any()
    assert math.isnan(measure.of_example(unanswered[0]))
    found = measure.value([example(0), example(1, answer="It is 1.", scores={name: 1.0})])
    assert found.count == 1
    assert found.value == pytest.approx(100 if name in {"bleu", "chrf"} else 1)
    assert math.isfinite(measure.of_example(example(1, answer="It is 1.", scores={name: 1.0})))


def test_the_validation_data_of_a_run_that_was_deleted_meanwhile(tiny_tokenizer):
    gone = Target("r", "The run", "model_name_or_path: m\n", run_id="20260101-000000-gone")
    reader = ExampleReader(EvaluationRequest((gone,), (VALIDATION,)), None, no_progress)
    with pytest.raises(EvaluationError, match="The run 20260101-000000-gone is no longer there"):
        reader.read(tiny_tokenizer, None, None)
