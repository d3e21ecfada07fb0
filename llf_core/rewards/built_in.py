"""Built-in rewards: format, correctness and length of an answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INSIDE = r"(?:(?!</?(?:think|answer)>).)*"
PATTERN = rf"\s*<think>{INSIDE}</think>\s*<answer>{INSIDE}</answer>\s*"
"""A thought followed by an answer, each exactly once and nothing else."""
BRACE = re.compile(r"(\\boxed\s*)?\{|\}")
NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?|(?<=\d)/\d+)(?![\d/])"
)
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
"""A comma between groups of three digits; `1,2` is two numbers."""
MINUS = "\N{MINUS SIGN}"
"""Many models write this sign before a negative number instead of a hyphen."""
CURRENCY = "$€£¥₹"
SIGNED_CURRENCY = re.compile(rf"^([-+])\s*[{CURRENCY}]\s*")
EXPONENT = re.compile(r"[eE]([-+]?[\d_]+)$")
MAX_EXPONENT = 400
"""Maximum exponent of a parsed number: the digits of `1e9999999999` would exhaust memory. Chosen by hand."""


@dataclass(frozen=True)
class BuiltIn:
    """A reward that a config can name without any code.

    Attributes:
        help: one sentence for the form and the reference.
        make: creates the function from config values.
        expects: whether it needs the expected answer of the data set.
    """

    help: str
    make: Callable[[Mapping[str, Any]], Callable[..., float | None]]
    expects: bool = False


def format_reward(pattern: str = PATTERN) -> Callable[..., float]:
    """Create a reward that is 1 if the whole answer matches a pattern, else 0 (DeepSeek-R1, arXiv 2501.12948).

    Args:
        pattern: regular expression; a dot also matches line breaks. Default: `<think>…</think><answer>…</answer>`.
    """
    try:
        form = re.compile(pattern, re.DOTALL)
    except OverflowError as error:
        raise re.error(str(error), pattern) from None

    def judge(answer: str) -> float:
        return float(form.fullmatch(answer) is not None)

    return judge


def correct(answer: str, expected: str | None) -> float | None:
    r"""Return 1 if an answer matches the expected one, else 0 (accuracy reward of DeepSeek-R1, arXiv 2501.12948).

    Compared is the content of the last `<answer>…</answer>`, else of the last `\boxed{…}`, else the last number; if
    the expected text has no number, its whole text. Numbers are compared by value, so that 1,000 equals 1000.0 and
    1/2 equals 0.5; texts without case, surrounding punctuation, and differences of white space. A minus sign
    (U+2212) equals a hyphen.

    Args:
        expected: the expected answer; None or white space if the data set has none.

    Returns:
        1.0 or 0.0; None if nothing is expected, so that the reward does not apply.
    """
    if expected is None or not expected.strip():
        return None
    expected, answer = expected.replace(MINUS, "-"), answer.replace(MINUS, "-")
    wanted, said = final_answer(expected), final_answer(answer)
    if wanted is None:
        wanted, said = expected, final_answer(answer, numbers=False) or answer
    if said is None:
        return 0.0
    left, right = parse_number(wanted), parse_number(said)
    if left is not None and right is not None:
        return float(left == right)
    return float(_plain(wanted) == _plain(said))


def length_reward(max_tokens: int, margin: int) -> Callable[..., float]:
    """Create the soft overlong penalty (DAPO, arXiv 2503.14476, eq. 13).

    It is 0 up to `max_tokens - margin` tokens and decreases linearly to -1 at `max_tokens`.

    Args:
        max_tokens: maximum completion length in tokens (L_max).
        margin: tokens before the limit over which the penalty grows, at least 1 (L_cache).
    """

    def judge(answer: str, tokens: int) -> float:
        del answer
        return -min(max(tokens - (max_tokens - margin), 0) / margin, 1.0)

    return judge


BUILT_IN: Mapping[str, BuiltIn] = {
    "format": BuiltIn(
        "1 if the completion matches `reward_pattern`, else 0.",
        lambda options: format_reward(options["reward_pattern"] or PATTERN),
    ),
    "correct": BuiltIn(
        "1 if the final answer equals that of the data set, else 0.",
        lambda _: correct,
        expects=True,
    ),
    "length": BuiltIn(
        "0, decreasing to -1 over the last fifth of `max_completion_length`.",
        lambda options: length_reward(options["max_completion_length"], max(1, options["max_completion_length"] // 5)),
    ),
}


def final_answer(text: str, *, numbers: bool = True) -> str | None:
    r"""Extract the final answer of a text.

    Returns:
        The content of the last `<answer>…</answer>` (in it, of the last `\boxed{…}`, unless that is empty), else of
            the last `\boxed{…}`, else the last number as written; None if there is none of these.
    """
    for closed in reversed(text.split("</answer>")[:-1]):
        _, tag, tagged = closed.partition("<answer>")
        if tag:
            return last_boxed(tagged) or tagged
    inside = last_boxed(text)
    if inside is not None:
        return inside
    found = NUMBER.findall(text) if numbers else []
    return found[-1] if found else None


def last_boxed(text: str) -> str | None:
    r"""Extract the content of the last closed `\boxed{…}`, with matched braces inside; None if there is none."""
    starts: list[tuple[int, bool]] = []  # of the open braces, and whether each is of a box
    last = slice(0, 0)
    for match in BRACE.finditer(text):
        if match[0] != "}":
            starts.append((match.end(), match[1] is not None))
        elif starts:
            start, boxed = starts.pop()
            if boxed and start > last.start:
                last = slice(start, match.start())
    return text[last] if last.start else None


def parse_number(text: str) -> Fraction | None:
    r"""Parse a text that is a single number, exactly.

    Currency signs (of dollar, euro, pound, yen and rupee, also between sign and digits), a percent sign, thousands
    separators and a full stop are dropped; `1/2` and `\frac{1}{2}` are fractions.

    Returns:
        The value; None if the text is not a number, its exponent exceeds `MAX_EXPONENT`, or it has more digits than
            Python parses (`sys.get_int_max_str_digits`).
    """
    around = f"{CURRENCY} "
    bare = text.replace("\\", "").strip().strip(around).rstrip(".%").strip(around)
    bare = SIGNED_CURRENCY.sub(r"\1", bare)
    bare = THOUSANDS.sub("", bare)
    bare = re.sub(r"^([-+]?)[dt]?frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", bare)
    exponent = EXPONENT.search(bare.strip())
    try:
        if exponent is not None and abs(int(exponent[1])) > MAX_EXPONENT:
            return None
        return Fraction(bare)
    except (ValueError, ZeroDivisionError):
        return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .!?\"'$")
