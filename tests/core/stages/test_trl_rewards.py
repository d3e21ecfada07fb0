"""Reward functions as TRL calls them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llf_core.rewards import Reward, RewardError
from llf_core.stages.online import trl_rewards as judging
from llf_core.stages.online.trl_rewards import TRLRewards

TEXTS = ["aaa", "a", "aa", "", "b"]


def judged(*functions: Any, weights: Any = None, processes: int = 1) -> tuple[TRLRewards, list[Any], list[Any], Any]:
    """A batch of five answers: four to the first prompt, one to the second."""
    rewards = [Reward(function.__name__, function) for function in functions]
    trl_rewards = TRLRewards(rewards, weights or [1.0] * len(rewards), lambda ids: TEXTS[ids[0]], processes)
    logged, told = [], []
    trl_rewards.tell = lambda key, message: told.append((key, message))
    asked = [[{"role": "user", "content": text}] for text in ("one", "one", "one", "one", "two")]

    def call() -> list[Any]:
        return [
            function(
                prompts=asked,
                completions=None,
                completion_ids=[[0, 9], [1], [2], [3], [4]],
                row=[{"level": n} for n in range(5)],
                expected=["x"] * 5,
                trainer_state=SimpleNamespace(global_step=6),
                log_extra=None,
                log_metric=lambda name, value: logged.append((name, value)),
            )
            for function in trl_rewards.functions
        ]

    return trl_rewards, logged, told, call


def length(answer):
    return len(answer)


def easy(answer, level):
    return None if level > 2 else 0.5


def test_a_function_is_called_like_the_reward_and_gives_its_values() -> None:
    trl_rewards, logged, told, call = judged(length, easy, weights=[1.0, 2.0])
    assert [function.__name__ for function in trl_rewards.functions] == ["length", "easy"]
    assert call() == [[3, 1, 2, 0, 1], [0.5, 0.5, 0.5, None, None]]
    assert [trl_rewards.total(one) for one in trl_rewards.last] == [4, 2, 3, 0, 1]
    assert trl_rewards.tokens == 6
    assert logged == [("rewards/easy/skipped", 0.4)]
    assert told == []


def test_what_is_shown_is_the_best_and_the_worst_to_one_prompt() -> None:
    trl_rewards, _, _, call = judged(length)
    call()
    assert [one.completion.answer for one in trl_rewards.shown(2)] == ["aaa", ""]
    assert [one.completion.answer for one in trl_rewards.shown(3)] == ["aaa", "a", ""]
    assert [one.completion.answer for one in trl_rewards.shown(9)] == ["aaa", "aa", "a", ""]
    assert trl_rewards.shown(0) == []


def test_an_answer_that_nothing_applies_to_is_told_once() -> None:
    trl_rewards, _, told, call = judged(easy)
    call()
    call()
    assert [trl_rewards.total(one) for one in trl_rewards.last] == [0.5, 0.5, 0.5, None, None]
    ((key, message),) = told
    assert key == "reward_functions"
    assert message.startswith("In step 7, all reward functions returned None for 2 of 5 completions.")


def test_skips_are_logged_from_the_first_on() -> None:
    skip = [False]

    def some(answer):
        return None if skip[0] else 1.0

    _, logged, _, call = judged(some)
    call()
    assert logged == []
    skip[0] = True
    call()
    skip[0] = False
    call()
    assert logged == [("rewards/some/skipped", 1.0), ("rewards/some/skipped", 0.0)]


def test_an_evaluation_is_no_part_of_what_is_shown_and_counted() -> None:
    trl_rewards, _, _, call = judged(length)
    trl_rewards.training = lambda: False
    call()
    assert (trl_rewards.last, trl_rewards.tokens) == ([], 0)


def test_the_step_is_named() -> None:
    def bad(answer):
        raise KeyError

    _, _, _, call = judged(bad)
    with pytest.raises(
        RewardError, match=r'^In step 7, on the prompt "one" and the answer "aaa" the reward .* KeyError\.'
    ):
        call()


def test_all_processes_learn_of_a_failure_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    def gather(own: list[Any]) -> list[Any]:
        said.append(own)
        return [*own, ("length", "On the prompt of another process it failed.")]

    monkeypatch.setattr(judging, "gather_object", gather)
    _, _, _, call = judged(length, processes=2)
    with pytest.raises(RewardError, match="In step 7, on the prompt of another process it failed"):
        call()
    assert said == [[]]
