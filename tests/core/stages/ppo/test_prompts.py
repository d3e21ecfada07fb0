"""Which prompts a phase answers where they do not divide evenly, and how long that makes a run."""

from __future__ import annotations

import pytest

from llf_core.stages.ppo.stage import Plan


def drawn(plan: Plan, prompts: int, phases: int) -> list[int]:
    """The places of the prompts of some phases."""
    found: list[int] = []
    for _ in range(phases):
        found += plan.prompt_indices(prompts, len(found))
    return found


@pytest.mark.parametrize(("step", "parts"), [(4, 1), (3, 2), (16, 1)])
def test_each_epoch_answers_every_prompt_once_wherever_its_phases_end(step: int, parts: int) -> None:
    plan = Plan(step=step, parts=parts, passes=2, seed=5)
    found = drawn(plan, 10, 15)
    epochs = [found[start : start + 10] for start in range(0, len(found) - 9, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > len(epochs) - 2


@pytest.mark.parametrize(
    ("prompts", "step", "parts", "passes", "phases"),
    [(16, 4, 1, 2, 4), (17, 4, 1, 2, 5), (1, 4, 2, 3, 1), (10, 4, 2, 1, 2)],
)
def test_an_epoch_has_the_steps_of_the_phases_that_answer_every_prompt(
    prompts: int, step: int, parts: int, passes: int, phases: int
) -> None:
    plan = Plan(step=step, parts=parts, passes=passes, seed=5)
    assert plan.phases(prompts) == phases
    assert plan.loader_length(prompts) == phases * parts * passes * step


def test_each_pass_over_a_phase_learns_from_every_answer_once() -> None:
    plan = Plan(step=4, parts=3, passes=2, seed=5)
    for answers in (12, 10, 2):
        for turn in range(2):
            phase_steps_done = range(turn * 3, turn * 3 + 3)
            parts = [plan.minibatch(answers, 7, one) for one in phase_steps_done]
            assert sorted(number for part in parts for number in part) == list(range(answers))
