"""The rewards that ship with LLF: the form of an answer, whether it is right, how long it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INSIDE = r"(?:(?!</?(?:think|answer)>).)*"
PATTERN = rf"\s*<think>{INSIDE}</think>\s*<answer>{INSIDE}</answer>\s*"
"""A thought, then an answer, each once and nothing beside them."""
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
BOXED = re.compile(r"\\boxed\s*\{")
NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?|(?<=\d)/\d+)(?![\d/])"
)
EXPONENT = re.compile(r"[eE]([-+]?[\d_]+)$")
LARGEST = 400
"""Largest exponent of a number that is taken for one: the digits of `1e9999999999` would fill the memory."""


@dataclass(frozen=True)
class BuiltIn:
    """A reward that ships with LLF.

    Attributes:
        help: one sentence.
        make: makes the function, from the values of a config.
        expects: it compares with the answer that the data set gives.
    """

    help: str
    make: Callable[[Mapping[str, Any]], Callable[..., float | None]]
    expects: bool = False


def format_reward(pattern: str = PATTERN) -> Callable[..., float]:
    """1 where the whole answer has a form, else 0.

    Args:
        pattern: a regular expression; a dot matches line ends too.
    """
    form = re.compile(pattern, re.DOTALL)

    def judge(answer: str) -> float:
        return float(form.fullmatch(answer) is not None)

    return judge


def correct(answer: str, expected: str | None) -> float | None:
    r"""1 where an answer says what was expected, else 0; None where nothing was.

    What is compared is what stands in the last `<answer>…</answer>`, else in the last `\boxed{…}`, else the last
    number; of an expected text without a number the whole text. Numbers are equal by value: 1,000 and 1000.0, 1/2 and
    0.5.
    """
    if expected is None or not expected.strip():
        return None
    wanted, said = final(expected), final(answer)
    if wanted is None:
        wanted, said = expected, final(answer, numbers=False) or answer
    if said is None:
        return 0.0
    left, right = number_of(wanted), number_of(said)
    if left is not None and right is not None:
        return float(left == right)
    return float(_plain(wanted) == _plain(said))


def length_reward(longest: int, room: int) -> Callable[..., float]:
    """The soft penalty of answers that are nearly too long (DAPO, arXiv 2503.14476, equation 13).

    0 up to `longest - room` tokens, from there falling in a straight line to -1 at `longest`.

    Args:
        longest: tokens at which an answer is cut.
        room: tokens before that over which the penalty grows.
    """

    def judge(answer: str, tokens: int) -> float:
        del answer
        return -min(max(tokens - (longest - room), 0) / room, 1.0)

    return judge


BUILT_IN: Mapping[str, BuiltIn] = {
    "format": BuiltIn(
        "1 where the answer has the form of `reward_pattern`, else 0.",
        lambda options: format_reward(options["reward_pattern"] or PATTERN),
    ),
    "correct": BuiltIn(
        "1 where the answer's end equals the data set's, else 0.",
        lambda _: correct,
        expects=True,
    ),
    "length": BuiltIn(
        "0, falling to -1 over the last fifth of `max_completion_length`.",
        lambda options: length_reward(options["max_completion_length"], max(1, options["max_completion_length"] // 5)),
    ),
}


def final(text: str, *, numbers: bool = True) -> str | None:
    """What a text comes to: its last tagged answer, else its last boxed one, else its last number."""
    tagged = TAGGED.findall(text)
    if tagged:
        return boxed(tagged[-1]) or str(tagged[-1])
    inside = boxed(text)
    if inside is not None:
        return inside
    found = NUMBER.findall(text) if numbers else []
    return found[-1] if found else None


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}` that is closed."""
    for match in reversed(list(BOXED.finditer(text))):
        depth = 1
        for place in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if not depth:
                return text[match.end() : place]
    return None


def number_of(text: str) -> Fraction | None:
    """The value of a text that is one number, with or without a sign of money, per cent or a full stop."""
    bare = text.strip().strip("$€£ ").rstrip(".%").strip("$ ").replace(",", "").replace("\\", "")
    bare = re.sub(r"^[dt]?frac\{(\d+)\}\{(\d+)\}$", r"\1/\2", bare)
    exponent = EXPONENT.search(bare.strip())
    try:
        if exponent is not None and abs(int(exponent[1])) > LARGEST:
            return None
        return Fraction(bare)
    except (ValueError, ZeroDivisionError):
        return None


def _plain(text: str) -> str:
    """A text without what says nothing: upper case, blanks, signs at its ends."""
    return " ".join(text.casefold().split()).strip(" .!?\"'$")
