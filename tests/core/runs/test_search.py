"""A search finds what people name, and nothing by a number that happens to be in an id."""

import re

import pytest

from llf_core.runs.listing import Row
from llf_core.runs.search import Search

ROW = Row(
    id="20261124-121212-experiment-99",
    name="experiment 120 lr=3e-3",
    state="finished",
    model="HuggingFaceTB/SmolLM2-135M-Instruct",
    dataset="/data/2026-12/faq.jsonl,alpaca_en_demo",
    stage="sft",
    method="lora",
    tags=("baseline", "v0"),
    note="Überarbeitet: 12 epochs. 我的模型",
)


@pytest.mark.parametrize(
    "query",
    [
        "", "experiment", "EXP 120", "lr=3e-3", "3e-3", "=3e-3", "base", "v0", "12 epochs", "über", "模型", "smollm2",
        "135m instruct", "huggingfacetb/smollm2", "faq", "alpaca", "sft lora", "20261124", "20261124-1212",
        "20261124-121212-experiment-99",
    ],
)  # fmt: skip
def test_words_are_found(query):
    assert Search(query).matches(ROW)


@pytest.mark.parametrize(
    "query",
    [
        "99",
        "121212",
        "2026",
        "24",
        "1",
        "experiment 20",
        "xperiment",
        "ora",
        "e-3",
        "2026-12",
        "data",
        "mistral",
        "v1",
        "berarbeitet",
    ],
)
def test_parts_of_ids_folders_words_and_numbers_are_not(query):
    assert not Search(query).matches(ROW)


def test_a_number_is_a_whole_one():
    rows = [Row(id=f"20261112-12{number:04}-x", name=f"experiment {number}", state="finished") for number in range(300)]
    assert [row.name for row in rows if Search("experiment 12").matches(row)] == ["experiment 12"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("x" * 201, "The search has 201 characters. Expected at most 200: use fewer words."),
        ("a " * 21, "The search has 21 words. Expected at most 20."),
    ],
)
def test_a_search_that_is_too_long_is_refused(query, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        Search(query)


def test_a_word_twice_counts_once():
    assert Search("b aa B aa").words == ("aa", "b")
