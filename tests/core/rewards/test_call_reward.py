"""What a reward function is told, and what becomes of what it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from llf_core.rewards import Completion, Reward, RewardError
from llf_core.rewards.decorator import PARAMETERS
from llf_core.user_functions.function_kind import Signature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MESSAGES = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "And 2 and 3?"},
)
ONE = Completion(MESSAGES, "5", (7, 8), {"level": "easy", "answer": "five", "prompt": "2+3"}, "five")
TWO = Completion(({"role": "user", "content": "And 1?"},), "1", (9,), {"level": "hard"})


def rewards_of(function: Any, *answers: Completion, told: dict[str, Any] | None = None) -> list[float | None]:
    return Reward("f", function).score(answers or (ONE,), told)


def test_a_function_takes_what_it_names() -> None:
    seen: dict[str, Any] = {}

    def all_of_it(
        prompt: str, answer: str, expected: str, messages: list[Any], tokens: int, row: dict[str, Any], level: str
    ) -> float:
        seen.update(locals())
        return 1.0

    assert rewards_of(all_of_it) == [1.0]
    del seen["seen"]
    assert seen == {
        "prompt": "And 2 and 3?",
        "answer": "5",
        "expected": "five",
        "messages": list(MESSAGES),
        "tokens": 2,
        "row": {"level": "easy", "answer": "five", "prompt": "2+3"},
        "level": "easy",
    }


def test_the_rest_are_the_columns() -> None:
    def more(answer: str, **row: Any) -> float:
        return len(row)

    # prompt, expected, messages, tokens, row and the column `level`
    assert rewards_of(more) == [6]


def test_a_function_of_lists_gets_what_trl_tells() -> None:
    def listed(prompts: Any, completions: Any, level: list[str], trainer_state: Any = None, **columns: Any) -> Any:
        assert prompts == [list(MESSAGES), [{"role": "user", "content": "And 1?"}]]
        assert completions == [[{"role": "assistant", "content": "5"}], [{"role": "assistant", "content": "1"}]]
        assert level == ["easy", "hard"]
        assert columns == {"answer": ["five", None], "prompt": ["2+3", None], "completion_ids": [[7, 8], [9]]}
        return np.array([trainer_state, 2])

    assert rewards_of(listed, ONE, TWO, told={"trainer_state": 1}) == [1.0, 2.0]


def test_without_completions_no_function_is_called() -> None:
    def listed(completions: Any) -> list[float]:
        return [1 / len(completions)]

    assert Reward("f", listed).score(()) == []


def test_a_function_of_lists_without_rest_gets_what_it_names() -> None:
    def listed(completions: Any) -> list[float | None]:
        return [None for _ in completions]

    assert rewards_of(listed, ONE, TWO) == [None, None]


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (True, 1.0), (np.float32(0.5), 0.5), (np.array([2.0]), 2.0), (torch.tensor(0.25), 0.25), (None, None)],
)
def test_numbers_of_every_kind(value: Any, number: float | None) -> None:
    assert rewards_of(lambda answer: value) == [number]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "returned nan. Expected a finite number, or None."),
        (1e39, "returned 1e+39. Expected at most 3.40282e+38, the largest float32."),
        (10**400, "returned inf. Expected a finite number, or None."),
        (np.float64("inf"), "returned inf. Expected a finite number, or None."),
        ("0.5", "returned '0.5'. Expected a number, or None."),
        ([1.0], "returned [1.0]. Expected a number, or None."),
        (torch.zeros(2), "returned tensor([0., 0.]). Expected a number, or None."),
        ({"reward": 1}, "returned {'reward': 1}. Expected a number, or None."),
    ],
)
def test_what_is_no_number_is_an_error_that_names_function_and_prompt(value: Any, said: str) -> None:
    with pytest.raises(RewardError) as caught:
        rewards_of(lambda answer: value)
    assert caught.value.message == f'On the prompt "And 2 and 3?" and the answer "5" the reward function f {said}'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1.0], "returned 1 values for 2 completions. Expected one value for each."),
        ([1.0, 2.0, 3.0], "returned 3 values for 2 completions. Expected one value for each."),
        (1.0, "returned a float for 2 completions. Expected one value for each."),
        (None, "returned a NoneType for 2 completions. Expected one value for each."),
    ],
)
def test_a_list_of_another_length(value: Any, said: str) -> None:
    with pytest.raises(RewardError, match="f returned") as caught:
        rewards_of(lambda completions: value, ONE, TWO)
    assert caught.value.message.endswith(f"the reward function f {said}")


def test_the_answer_that_a_list_s_number_belongs_to_is_named() -> None:
    with pytest.raises(RewardError, match=r'prompt "And 1.*returned nan'):
        rewards_of(lambda completions: [1.0, float("nan")], ONE, TWO)


def test_an_exception_is_told_with_what_it_says() -> None:
    def divide(answer: str) -> float:
        return 1 / (int(answer) - 5)

    with pytest.raises(RewardError, match="f raised ZeroDivisionError: division by zero") as caught:
        rewards_of(divide)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_long_texts_are_cut_in_a_message() -> None:
    long = Completion(({"role": "user", "content": "word\n" * 100},), "a" * 100)
    with pytest.raises(RewardError) as caught:
        rewards_of(lambda answer: None.x, long)  # type: ignore[attr-defined]
    assert f'"{"word " * 11}word…"' in caught.value.message
    assert f'"{"a" * 59}…"' in caught.value.message


@pytest.mark.parametrize(
    "function",
    [
        lambda text: 0.0,
        lambda *answer: 0.0,
        lambda answer, /: 0.0,
        lambda **row: 0.0,
        lambda prompts: 0.0,
    ],
)
def test_a_function_must_take_an_answer_by_name(function: Any) -> None:
    with pytest.raises(TypeError, match="Expected parameters by name, `answer` among them"):
        Signature.of(function, "f", PARAMETERS)


def test_a_coroutine_is_refused() -> None:
    async def later(answer: str) -> float:
        return 0.0

    async def one_by_one(answer: str) -> AsyncIterator[float]:
        yield 0.0

    for function in (later, one_by_one):
        with pytest.raises(TypeError, match="f is a coroutine or a generator"):
            Signature.of(function, "f", PARAMETERS)


def test_columns_that_it_cannot_do_without() -> None:
    assert Signature.of(lambda answer, level, row, hint=None, **more: 0.0, "f", PARAMETERS).columns == ("level",)
    assert Signature.of(lambda completions, level, trainer_state: 0.0, "f", PARAMETERS).columns == ("level",)
