"""Completions of the sample prompts over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

Item = TypeVar("Item")
MAX_PROMPTS, MAX_STEPS, MAX_CHARACTERS = 50, 200, 2000
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
            older: index of the prompt, from 1, whose older answers are requested, at most `MAX_STEPS` evenly spaced; 0
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
    steps = downsample(every, MAX_STEPS) if all_steps else every[-NEWEST_STEPS:]
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
