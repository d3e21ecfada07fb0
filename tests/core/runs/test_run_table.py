"""Runs in a terminal of 80 columns."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.runs.listing import Row
from llf_core.runs.run_text import age, middle_cut, table

NOW = 1_800_000_000.0
ROWS = [
    Row("20261124-142530-smollm2-135m-instruct-sft-lora", "smollm2-135m-instruct-sft-lora lr 3e-3", "finished",
        1000, 1000, created=NOW - 7200, loss=0.2933),
    Row("20261124-142530-smollm2-135m-instruct-sft-full", "smollm2-135m-instruct-sft-full lr 1e-4", "running",
        3, 100_000, created=NOW - 90, loss=12.5),
    Row("20261123-000000-x", "x", "failed", created=NOW - 5 * 86400, reason="Out of\nmemory on this machine. " * 9),
    Row("20261122-000000-y", "y", "broken", reason="status.json cannot be read."),
    Row("20261121-000000-z", "z", "finished", 4, 4, created=NOW, loss=float("nan"), reason="Early stopping ended it."),
]  # fmt: skip
KNOWN = [row.id for row in ROWS]


def test_a_header_the_loss_and_the_age():
    lines = table(ROWS, KNOWN, 80, NOW)
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["RUN", "NAME", "STATE", "STEP", "LOSS", "AGE"]
    assert lines[1].split()[-5:] == ["finished", "1,000/1,000", "0.2933", "2", "h"]
    assert lines[2].split()[-5:] == ["running", "3/100,000", "12.50", "1", "min"]
    assert lines[3].split() == ["20261123-000000", "x", "failed", "5", "d"]
    assert lines[4].startswith("  Out of memory on this machine. Out of")
    assert lines[4].endswith("…")
    assert lines[6] == "  status.json cannot be read."
    assert lines[7].split()[-4:] == ["4/4", "NaN", "0", "s"]
    assert len(lines) == 8


def test_every_run_can_be_called_by_what_stands_first():
    first = [line.split()[0] for line in table(ROWS, KNOWN, 120, NOW) if re.match(r"\d{8}-", line)]
    ends = [short.partition("…") for short in first]
    assert [[one for one in KNOWN if one.startswith(a) and one.endswith(b)] for a, _, b in ends] == [
        [one] for one in KNOWN
    ]


def test_columns_stand_below_each_other():
    lines = [line for line in table(ROWS, KNOWN, 100, NOW) if not line.startswith("  ")]
    column = lines[0].index("STATE")
    assert [line[column:].split()[0] for line in lines[1:]] == [row.state for row in ROWS]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_names_keep_both_their_ends(width):
    lines = table(ROWS[:2], KNOWN, width, NOW)
    assert "3e-3" in lines[1]
    assert "1e-4" in lines[2]


@given(st.text(), st.integers(1, 40))
def test_a_cut_text_fits(text, width):
    cut = middle_cut(text, width)
    assert len(cut) <= max(width, min(len(text), width))
    assert cut == text or "…" in cut


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86400, "1 d")]
)
def test_an_age(seconds, text):
    assert age(seconds) == text
