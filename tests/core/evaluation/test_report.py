"""What an evaluation says of its data."""

from types import SimpleNamespace

import pytest

from llf_core.evaluation.report import data_text
from llf_core.runs.evaluations import EvaluatedData


@pytest.mark.parametrize(
    ("examples", "unusable", "dtype", "text"),
    [
        (200, 0, "float32", "200 examples of a.jsonl"),
        (200, 0, "bfloat16", "200 examples of a.jsonl. Computed in bfloat16."),
        (
            6,
            3,
            "bfloat16",
            (
                "6 examples of a.jsonl; 3 other records cannot be used. Computed in bfloat16, whose rounding can "
                "change a loss of few examples by 2 %."
            ),
        ),
        (1, 1, None, "1 example of a.jsonl; 1 other record cannot be used"),
    ],
)
def test_the_data_and_the_precision_are_told(examples, unusable, dtype, text):
    data = EvaluatedData(("a.jsonl",), "0", examples, unusable)
    assert data_text(SimpleNamespace(data=data, settings={"dtype": dtype}), "a.jsonl") == text
