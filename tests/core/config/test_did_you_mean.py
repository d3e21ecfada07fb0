"""What counts as a misspelling, and which name is the nearest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.config.did_you_mean import did_you_mean, distance, misspelt, nearest

WORDS = st.text(st.sampled_from("abcd-1"), max_size=8)


def plain_distance(one, other):
    """By the definition, letter by letter (optimal string alignment)."""
    table = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            ways = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (one[i - 1] != other[j - 1])]
            if i > 1 and j > 1 and one[i - 2 : i] == other[j - 2 : j][::-1]:
                ways.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(ways)
    return table[len(one), len(other)]


@given(WORDS, WORDS)
def test_the_distance_is_that_of_the_definition(one, other):
    assert distance(one, other) == plain_distance(one, other)
    assert distance(one, other) == distance(other, one)


@given(WORDS, WORDS, st.integers(0, 3))
def test_a_limit_changes_nothing_below_it(one, other, most):
    found = distance(one, other, most)
    assert found == distance(one, other) or (found > most and distance(one, other) > most)


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("smollm2-135m-instrct", ["smollm2-135m-instruct"], "smollm2-135m-instruct"),
        ("smollm2_135M_instruct", ["smollm2-135m-instruct"], "smollm2-135m-instruct"),
        ("alpaca_en_dmo", ["alpaca_zh_demo", "alpaca_en_demo"], "alpaca_en_demo"),
        ("q_prj", ["k_proj", "o_proj", "q_proj"], "q_proj"),
        ("qproj", ["k_proj", "q_proj"], "q_proj"),
        ("model-7b", ["model-3b"], None),  # another size is no slip
        ("checkpoint-100", ["checkpoint-200"], None),
        ("smollm-135m-instruct", ["smollm2-135m-instruct"], "smollm2-135m-instruct"),
        ("mine", ["yours", "theirs"], None),
        ("abc", ["xbz"], None),
    ],
)
def test_a_misspelling(name, known, meant):
    assert misspelt(name, known) == meant


def test_the_nearest_of_a_hub_may_be_named_without_its_owner():
    known = ["Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "gpt2"]
    assert nearest("qwen2.5-7b-instruct", known) == "Qwen/Qwen2.5-7B-Instruct"
    assert nearest("Qwen/Qwen2.5-7B-Instrct", known) == "Qwen/Qwen2.5-7B-Instruct"
    assert nearest("another type of file", known) is None
    assert did_you_mean("gtp2", known) == " Did you mean 'gpt2'?"
