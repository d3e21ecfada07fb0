"""A search finds parts of what people name, never more runs with one key more."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.runs.listing import Row
from llf_core.runs.run_index import Search

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
        "20261124-121212-experiment-99", "xperim", "20261124 ora", "2026", "experiment 12", "t-99", "99", "berarb",
    ],
)  # fmt: skip
def test_parts_of_names_ids_and_words_are_found(query):
    assert Search(query).matches(ROW)


@pytest.mark.parametrize(
    "query", ["1212", "24", "experiment 2026", "experiment 99x", "2026-12", "data/", "mistral", "v1"]
)
def test_times_of_ids_folders_and_other_words_are_not(query):
    assert not Search(query).matches(ROW)


LISTED = [
    Row(id=f"20261202-12{at:04}-run-{at:03}", name=f"experiment {at}", state="finished", tags=("diverged",) * (at == 7))
    for at in range(300)
]
"""Runs as in a busy home: the time of each id has the digits that are also in names."""


def found(query):
    return [row.name for row in LISTED if Search(query).matches(row)]


def test_an_experiment_that_is_typed_is_found_at_each_key():
    counts = [len(found("experiment 290"[:end])) for end in range(1, 15)]
    assert counts == [300] * 11 + [138, 13, 1]  # of 0 to 299, 138 have a 2 and 13 have 29
    assert found("experiment 29") == [f"experiment {at}" for at in (29, 129, 229, *range(290, 300))]
    assert found("run-050") == found("20261202-120050") == ["experiment 50"]
    assert found("iverg") == ["experiment 7"]


WORDS = ["experiment", "290", "run-050", "iverg", "20", "20261202-120050-run-050", "ex"]


@given(st.lists(st.sampled_from(WORDS)))
def test_no_key_press_finds_more(words):
    text = " ".join(words)[:200]
    before = {row.id for row in LISTED[::10] if Search("").matches(row)}
    for end in range(1, len(text) + 1):
        if len(text[:end].split()) > 20:
            break
        now = {row.id for row in LISTED[::10] if Search(text[:end]).matches(row)}
        assert now <= before
        before = now


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
