"""One format for numbers of one kind: the table that the front ends are held to as well."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.runs import formatting
from llf_core.runs.jsonl import as_number

FORMATS = json.loads((Path(__file__).parents[2] / "number_formats.json").read_text())
WRITERS = {
    "number": formatting.number,
    "rate": formatting.rate,
    "share": formatting.share,
    "count": formatting.count,
    "bytes": lambda amount: " ".join(formatting.size(amount)),
    "duration": formatting.duration,
}


@pytest.mark.parametrize(
    ("kind", "value", "text"), [(kind, *case) for kind, cases in FORMATS.items() for case in cases]
)
def test_the_table(kind, value, text):
    assert WRITERS[kind](as_number(value)) == text
    if kind != "duration":
        assert formatting.value(as_number(value), kind) == text


def test_a_metric_that_is_no_number_has_no_percent():
    assert [formatting.amount_text(value, "%") for value in (0.8316, math.nan, math.inf)] == [
        "83.2 %",
        "NaN",
        "infinity",
    ]


@pytest.mark.parametrize("value", [1e30, -1.7e308])
def test_a_value_of_any_size_has_a_text(value):
    assert int(formatting.count(value).replace(",", "")) == int(value)
    assert formatting.share(value / 100).endswith(" %")
    assert formatting.share(math.copysign(1.7e308, value)).endswith("infinity")  # in percent it is none


@given(st.floats(1e-3, 9.99e8))
def test_a_quantity_is_exact_to_its_digits(value):
    written = formatting.number(value)
    assert abs(float(written.replace(",", "")) - value) <= 0.5001 * max(10 ** (math.floor(math.log10(value)) - 3), 1e-4)
    assert len(written.replace(",", "").replace(".", "").lstrip("0")) <= max(5, len(f"{value:.0f}"))
    assert formatting.number(-value) == f"-{written}"


@given(st.floats(1e-12, 1e3))
def test_a_rate_is_read_back_to_three_digits(value):
    assert float(formatting.rate(value).replace(",", "")) == pytest.approx(value, rel=5.01e-3)
