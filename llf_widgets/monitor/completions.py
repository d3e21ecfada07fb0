"""Completions that a run sampled: for training, with their rewards, and of the sample prompts over time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from llf_core.runs.jsonl import as_number

if TYPE_CHECKING:
    from collections.abc import Iterable


MAX_STEPS, MAX_ROWS, MAX_FUNCTIONS = 30, 8, 12
"""Limits of the view: steps, and rows per step, are downsampled evenly; further reward functions are omitted."""
MAX_HELD = 256  # answers of one step that are held until the next one
ANSWER_CHARACTERS, PROMPT_CHARACTERS = 700, 300  # letters


@dataclass(frozen=True)
class Completion:
    """A completion that the policy sampled for training; rewards are None if unknown or not finite."""

    prompt: str
    text: str
    reward: float | None
    rewards: dict[str, float | None]


@dataclass
class _Step:
    attempt: int
    rows: list[Completion] = field(default_factory=list)
    count: int = 0
    total: float = 0.0
    scored: int = 0


class Completions:
    """Completions by step, of the last attempt, limited by even downsampling to some steps and rows."""

    def __init__(self) -> None:
        self._steps: dict[int, _Step] = {}
        self._functions: dict[str, None] = {}

    def add(self, samples: Iterable[dict[str, Any]]) -> None:
        """Add new lines of `samples.jsonl`; samples of other kinds are skipped."""
        for sample in samples:
            prompt, text, step = sample.get("prompt"), sample.get("text"), sample.get("step")
            if sample.get("kind") != "completion" or not isinstance(text, str) or not isinstance(step, int):
                continue
            attempt = sample.get("attempt")
            self._add(
                step,
                attempt if isinstance(attempt, int) else 1,
                Completion(
                    truncate(_plain(prompt), PROMPT_CHARACTERS),
                    truncate(text, ANSWER_CHARACTERS),
                    _finite(sample.get("reward")),
                    self._by_function(sample.get("rewards")),
                ),
            )

    def view(self) -> dict[str, object]:
        """Data for the front end.

        Returns:
            `functions` (their names) and `steps`, each `{"step", "count", "mean", "rows"}`: number of completions, mean
            reward, and rows `[reward, [by function], prompt, text]`, highest reward first. Rewards and means that are
            unknown or not finite are None.
        """
        functions = list(self._functions)[:MAX_FUNCTIONS]
        return {
            "functions": functions,
            "steps": [
                {
                    "step": step,
                    "count": found.count,
                    "mean": _finite(found.total / found.scored) if found.scored else None,
                    "rows": [
                        [one.reward, [one.rewards.get(name) for name in functions], one.prompt, one.text]
                        for one in _downsampled(found.rows)
                    ],
                }
                for step, found in downsample(sorted(self._steps.items()), MAX_STEPS)
            ],
        }

    def last(self) -> tuple[int, list[Completion]]:
        """The last step and its completions of highest and lowest (or unknown) reward; 0 and none without a step."""
        if not self._steps:
            return 0, []
        step = max(self._steps)
        rows = _by_reward(self._steps[step].rows)
        return step, rows if len(rows) < 2 else [rows[0], rows[-1]]  # noqa: PLR2004 - both ends

    def _add(self, step: int, attempt: int, row: Completion) -> None:
        found = self._steps.get(step)
        if found is None or attempt > found.attempt:
            for other in self._steps.values():  # complete by now
                other.rows = _downsampled(other.rows)
            found = self._steps[step] = _Step(attempt)
            if len(self._steps) > 4 * MAX_STEPS:
                self._steps = dict(downsample(sorted(self._steps.items()), 2 * MAX_STEPS))
        if attempt < found.attempt:
            return
        found.count += 1
        if row.reward is not None:
            found.total, found.scored = found.total + row.reward, found.scored + 1
        if len(found.rows) < MAX_HELD:
            found.rows.append(row)

    def _by_function(self, rewards: object) -> dict[str, float | None]:
        if not isinstance(rewards, dict):
            return {}
        self._functions.update(dict.fromkeys(map(str, rewards)))
        return {str(name): _finite(value) for name, value in rewards.items()}


def _by_reward(rows: list[Completion]) -> list[Completion]:
    return sorted(rows, key=lambda one: math.inf if one.reward is None else -one.reward)


def _downsampled(rows: list[Completion]) -> list[Completion]:
    return downsample(_by_reward(rows), MAX_ROWS)


def _finite(value: object) -> float | None:
    number = as_number(value)
    return number if number is not None and math.isfinite(number) else None


def _plain(prompt: object) -> str:
    """A prompt as text: the last message of a conversation."""
    if isinstance(prompt, list):
        prompt = prompt[-1] if prompt else ""
    if isinstance(prompt, dict):
        prompt = prompt.get("content")
    return prompt if isinstance(prompt, str) else ""


Item = TypeVar("Item")

MAX_PROMPTS, MAX_SAMPLE_STEPS, MAX_CHARACTERS = 50, 200, 2000
"""Limits of the view: further prompts are omitted, steps are downsampled, texts are cut."""

NEWEST_STEPS = 20
"""Number of steps per prompt, unless older answers are requested."""


class SampleAnswers:
    """Answers by prompt and step; for one step the answer of the last attempt."""

    def __init__(self) -> None:
        self._base: dict[str, str] = {}
        self._tuned: dict[str, dict[int, str]] = {}

    def add(self, samples: Iterable[dict[str, Any]]) -> None:
        """Add new lines of `samples.jsonl`; samples of other kinds are skipped."""
        for sample in samples:
            prompt, text, step = sample.get("prompt"), sample.get("text"), sample.get("step")
            if sample.get("kind") != "answer" or not isinstance(prompt, str) or not isinstance(text, str):
                continue
            answers = self._tuned.setdefault(prompt, {})
            if sample.get("of") == "base":
                self._base[prompt] = text
            elif isinstance(step, int):
                answers[step] = text

    def view(self, older: int = 0) -> list[dict[str, object]]:
        """Data for the front end: the newest answers to each of up to `MAX_PROMPTS` prompts, in order of appearance.

        Args:
            older: index of the prompt, from 1, whose older answers are requested, `MAX_SAMPLE_STEPS` at most; 0
                for none.

        Returns:
            `{"prompt", "base", "steps", "texts", "older"}` each; `older` is the number of earlier steps that can be
            requested, 0 for the prompt whose older answers were.
        """
        return [
            _row(prompt, self._base.get(prompt), answers, all_steps=number == older)
            for number, (prompt, answers) in enumerate(self._shown(), start=1)
        ]

    def last(self) -> list[tuple[str, str, str, int]]:
        """(prompt, base answer or empty, newest answer, its step) of each prompt with an answer of the run."""
        rows = []
        for prompt, answers in self._shown():
            if answers:
                step = max(answers)
                rows.append((truncate(prompt), truncate(self._base.get(prompt, "")), truncate(answers[step]), step))
        return rows

    def _shown(self) -> list[tuple[str, dict[int, str]]]:
        return list(self._tuned.items())[:MAX_PROMPTS]


def _row(prompt: str, base: str | None, answers: dict[int, str], *, all_steps: bool) -> dict[str, object]:
    every = sorted(answers)
    steps = downsample(every, MAX_SAMPLE_STEPS) if all_steps else every[-NEWEST_STEPS:]
    return {
        "prompt": truncate(prompt),
        "base": None if base is None else truncate(base),
        "steps": steps,
        "texts": [truncate(answers[step]) for step in steps],
        "older": 0 if all_steps else len(every) - len(steps),
    }


def downsample(rows: list[Item], limit: int) -> list[Item]:
    """At most `limit` (at least 2) rows, evenly spaced, first and last included."""
    if len(rows) <= limit:
        return rows
    return [rows[round(place * (len(rows) - 1) / (limit - 1))] for place in range(limit)]


def truncate(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Shorten a text to `limit` characters (at least 1), with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
