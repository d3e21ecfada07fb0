"""What a run answered to the same prompts as time went on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

PROMPTS, STEPS, CHARACTERS = 50, 200, 2000
"""What a view is given at most: more prompts are left out, steps thinned out, texts cut."""


class Timeline:
    """Answers by prompt and step; of one step the answer of the last attempt."""

    def __init__(self) -> None:
        self._base: dict[str, str] = {}
        self._tuned: dict[str, dict[int, str]] = {}

    def add(self, samples: Iterable[dict[str, Any]]) -> None:
        """Takes in new lines of `samples.jsonl`; what is no answer is passed over."""
        for sample in samples:
            prompt, text, step = sample.get("prompt"), sample.get("text"), sample.get("step")
            if sample.get("kind") != "answer" or not isinstance(prompt, str) or not isinstance(text, str):
                continue
            answers = self._tuned.setdefault(prompt, {})
            if sample.get("of") == "base":
                self._base[prompt] = text
            elif isinstance(step, int):
                answers[step] = text

    def view(self) -> list[dict[str, Any]]:
        """For the front end: `{"prompt", "base", "steps", "texts"}`, the prompts in the order in which they came."""
        return [
            _row(prompt, self._base.get(prompt), answers) for prompt, answers in list(self._tuned.items())[:PROMPTS]
        ]

    def last(self) -> list[tuple[str, str, str, int]]:
        """For the saved notebook: each prompt with the base's answer, the newest one and its step."""
        rows = []
        for prompt, answers in self._first():
            if answers:
                step = max(answers)
                rows.append((_cut(prompt), _cut(self._base.get(prompt, "")), _cut(answers[step]), step))
        return rows

    def _first(self) -> list[tuple[str, dict[int, str]]]:
        return list(self._tuned.items())[:PROMPTS]


def _row(prompt: str, base: str | None, answers: dict[int, str]) -> dict[str, Any]:
    steps = sorted(answers)
    if len(steps) > STEPS:
        kept = {round(place * (len(steps) - 1) / (STEPS - 1)) for place in range(STEPS)}
        steps = [step for place, step in enumerate(steps) if place in kept]
    return {
        "prompt": _cut(prompt),
        "base": None if base is None else _cut(base),
        "steps": steps,
        "texts": [_cut(answers[step]) for step in steps],
    }


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
