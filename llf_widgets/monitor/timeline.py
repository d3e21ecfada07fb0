"""Answers to the sample prompts over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

Row = TypeVar("Row")
PROMPTS, STEPS, CHARACTERS = 50, 200, 2000
"""Limits of the view: further prompts are omitted, steps are downsampled, texts are cut."""
NEWEST = 20
"""Number of steps per prompt, unless older answers are requested."""


class Timeline:
    """Answers by prompt and step; for one step the answer of the last attempt."""

    def __init__(self) -> None:
        self._base: dict[str, str] = {}
        self._tuned: dict[str, dict[int, str]] = {}

    def add(self, samples: Iterable[dict[str, Any]]) -> None:
        """Add new lines of `samples.jsonl`; other samples are skipped."""
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
        """Data for the front end: the newest answers to each prompt, in order of first appearance.

        Args:
            older: index of the prompt, from 1, whose older answers are requested; 0 for none.

        Returns:
            `{"prompt", "base", "steps", "texts", "older"}` each; `older` is the number of omitted earlier steps.
        """
        return [
            _row(prompt, self._base.get(prompt), answers, whole=number == older)
            for number, (prompt, answers) in enumerate(self._first(), start=1)
        ]

    def last(self) -> list[tuple[str, str, str, int]]:
        """Each prompt with the base answer, the newest answer and its step, for the saved notebook."""
        rows = []
        for prompt, answers in self._first():
            if answers:
                step = max(answers)
                rows.append((cut(prompt), cut(self._base.get(prompt, "")), cut(answers[step]), step))
        return rows

    def _first(self) -> list[tuple[str, dict[int, str]]]:
        return list(self._tuned.items())[:PROMPTS]


def _row(prompt: str, base: str | None, answers: dict[int, str], *, whole: bool) -> dict[str, object]:
    every = sorted(answers)
    steps = spread(every, STEPS) if whole else every[-NEWEST:]
    return {
        "prompt": cut(prompt),
        "base": None if base is None else cut(base),
        "steps": steps,
        "texts": [cut(answers[step]) for step in steps],
        "older": 0 if whole else len(every) - len(steps),
    }


def spread(rows: list[Row], most: int) -> list[Row]:
    """At most `most` rows, evenly spaced, first and last included.

    Args:
        rows: the rows.
        most: maximum number.
    """
    if len(rows) <= most:
        return rows
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def cut(text: str, letters: int = CHARACTERS) -> str:
    """Shorten a text with an ellipsis.

    Args:
        text: the text.
        letters: maximum length.
    """
    return text if len(text) <= letters else text[: letters - 1] + "…"
