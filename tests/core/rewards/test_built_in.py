"""The rewards that ship with LLF, by tables."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from llf_core.rewards import BUILT_IN
from llf_core.rewards.built_in import correct, final_answer, format_reward, last_boxed, length_reward, parse_number


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("<think>2 and 2</think><answer>4</answer>", 1),
        ("<think>two\nlines</think>\n<answer>4\n</answer>\n", 1),
        ("<think></think><answer></answer>", 1),
        ("<answer>4</answer>", 0),
        ("<think>2 and 2</think>4", 0),
        ("Well. <think>2</think><answer>4</answer>", 0),
        ("<think>2</think><answer>4</answer> Good bye.", 0),
        ("<think>2<think>3</think><answer>4</answer>", 0),
        ("<think>2</think><think>3</think><answer>4</answer>", 0),
        ("<think>2</think><answer>4</answer><answer>5</answer>", 0),
        ("<answer>4</answer><think>2</think>", 0),
        ("", 0),
    ],
)
def test_the_form_is_a_thought_and_an_answer_and_nothing_beside_them(answer: str, reward: float) -> None:
    assert format_reward()(answer) == reward


def test_the_form_may_be_another_one() -> None:
    judge = BUILT_IN["format"].make({"reward_pattern": r"Answer: \d+\.?"})
    assert [judge(text) for text in ("Answer: 12.", "Answer: twelve", "So, Answer: 12")] == [1, 0, 0]


@pytest.mark.parametrize(
    ("expected", "answer", "reward"),
    [
        ("42", "It is 41, no, 42.", 1),
        ("42", "42 and not 41", 0),
        ("42", "no number", 0),
        ("1000", "That makes 1,000.", 1),
        ("1,234,567", "1234567", 1),
        ("0.5", "It is 1/2", 1),
        ("0.5", "It is .5", 1),
        ("3", "3.0", 1),
        ("-7", "minus seven is -7", 1),
        ("7", "-7", 0),
        ("5", "room4.5", 0),
        ("She has 3 + 4 = 7 apples.\n#### 7", "So 7 apples", 1),
        ("7", "<think>maybe 8</think><answer>7</answer> or 9", 1),
        ("7", "<answer>8</answer><answer>7</answer>", 1),
        ("7", "<answer>$7$</answer>", 1),
        ("12", r"so \boxed{12} metres in 3 s", 1),
        (r"\boxed{\frac{1}{2}}", "1/2", 1),
        (r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", 1),
        (r"\boxed{x^2}", r"\boxed{x^{2}}", 0),
        (r"\boxed{x^{2}}", r"first \boxed{y}, then \boxed{x^{2}}", 1),
        ("Paris", "<answer> paris. </answer>", 1),
        ("Paris", "Paris", 1),
        ("Paris", "It is Paris", 0),
        ("B", "<think>A?</think><answer>B</answer>", 1),
        ("1/0", "1/0", 1),
        ("100000", "The value is 1e5", 1),
        ("1", "The value is 1e5", 0),
        ("50", r"\boxed{\$50}", 1),
        ("0.0025", "about 2.5E-3.", 1),
        ("2", "2e", 1),
        ("7", "<answer>1e9999999999</answer>", 0),
        ("7", "<answer>1e-9_999_999_999 \n.</answer>", 0),
        ("1e9999999999", "<answer>1e9999999999</answer>", 1),
        ("7", "", 0),
        ("-5", "It is \N{MINUS SIGN}5.", 1),
        ("5", "It is \N{MINUS SIGN}5.", 0),
        ("a \N{MINUS SIGN} b", "<answer>a - b</answer>", 1),
        ("-1/2", r"\boxed{-\frac{1}{2}}", 1),
        ("7", r"<answer>7</answer> and </answer> and <answer>8", 1),
    ],
)
def test_an_answer_is_right_when_its_end_is(expected: str, answer: str, reward: float) -> None:
    assert correct(answer, expected) == reward


@pytest.mark.parametrize("expected", [None, "", "  "])
def test_nothing_is_right_or_wrong_where_nothing_is_expected(expected: str | None) -> None:
    assert correct("42", expected) is None


@pytest.mark.parametrize(
    ("tokens", "reward"), [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0), (200, -1.0)]
)
def test_the_penalty_falls_over_the_last_tokens(tokens: int, reward: float) -> None:
    assert length_reward(100, 20)("", tokens) == pytest.approx(reward)
    assert BUILT_IN["length"].make({"max_completion_length": 100})("", tokens) == pytest.approx(reward)


def test_a_penalty_has_room_where_answers_are_very_short() -> None:
    judge = BUILT_IN["length"].make({"max_completion_length": 2})
    assert [judge("", 1), judge("", 2)] == [0, -1]


@pytest.mark.parametrize(
    ("text", "inside"),
    [(r"\boxed{a{b}c}", "a{b}c"), (r"\boxed {1}", "1"), (r"\boxed{1", None), ("1", None), (r"\boxed{1} \boxed{2", "1")],
)
def test_a_box_is_closed_by_its_own_brace(text: str, inside: str | None) -> None:
    assert last_boxed(text) == inside


def test_what_a_text_comes_to() -> None:
    assert final_answer("1 then 2") == "2"
    assert final_answer("on 2024/05/06 or 1/2") == "1/2"
    assert final_answer("one", numbers=True) is None
    assert final_answer("1", numbers=False) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,000.", 1000),
        ("-12,345,678.5", Fraction(-24691357, 2)),
        ("50%", 50),
        ("-$5", -5),
        ("+ € 5", 5),
        ("$-5", -5),
        ("¥5", 5),
        (r"\$50", 50),
        ("5 - $3", None),
        ("x", None),
        ("1/0", None),
        ("1,2,3", None),
        ("1,2345", None),
    ],
)
def test_a_number_with_what_stands_around_it(text: str, value: Fraction | int | None) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("pattern", ["(a", "a{99999999999}"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(re.error):
        format_reward(pattern)
