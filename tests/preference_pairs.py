"""Preference pairs, as fixtures."""

import json

import pytest

QUESTIONS = [f"What is {a} plus {b}?" for a in range(4) for b in range(4)]


@pytest.fixture
def pair_rows():
    """16 preference pairs of different lengths."""
    return [
        {"instruction": q, "input": "", "chosen": f"It is {i}." + " Sure." * (i % 3), "rejected": "No idea" + "!" * i}
        for i, q in enumerate(QUESTIONS)
    ]


@pytest.fixture
def pairs(pair_rows, tmp_path):
    """A file of them."""
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(pair_rows))
    return str(path)
