"""Verdicts of a judge and votes of a person on the answers of two models: files beside the result of the second one."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from llf_core.runs.jsonl import append, records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.runs.evaluations import EvaluationResult, ExampleResult

VERDICTS = "verdicts.jsonl"
Outcome = Literal["win", "tie", "lose"]
"""Whether the second model's answer is better than, as good as, or worse than the first model's."""
VOTES = "votes.jsonl"
Vote = Literal["win", "tie", "lose"]


@dataclass(frozen=True)
class JudgedPair:
    """A judge's verdict on a pair of answers.

    Attributes:
        source: data set of the example.
        pair: equal for the same two answers to the same prompt.
        judge: key of the judge, equal for the same model with the same rubric.
        orders: the outcome for each order of the answers, the first model's first; None where the reply had no
            verdict. Empty for equal answers, which are not sent to the judge.
        replies: the replies, or why there is none.
        base: `EvaluatedTarget.weights` of the first model; empty if unknown.
    """

    source: str
    index: int
    pair: str
    judge: str
    name: str
    orders: tuple[Outcome | None, ...] = ()
    replies: tuple[str, ...] = ()
    base: str = ""
    base_name: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """`ExampleResult.key` of the example."""
        return self.source, self.index

    @property
    def flipped(self) -> bool:
        """Whether the verdict changes with the order of the answers (position bias)."""
        return len(set(self.orders)) > 1 and None not in self.orders

    @property
    def outcome(self) -> Outcome | None:
        """The verdict on the second model; None if a reply had none. A tie if it is flipped, and for equal answers."""
        if None in self.orders:
            return None
        return "tie" if self.flipped or not self.orders else self.orders[0]


def pair_key(base: ExampleResult, tuned: ExampleResult) -> str:
    """Identify a prompt, the expected answer and two answers: the first 16 hex digits of their SHA-256."""
    what = repr([list(base.prompt), base.reference, base.answer, tuned.answer])
    return hashlib.sha256(what.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def add_verdict(result: EvaluationResult, verdict: JudgedPair) -> None:
    """Append a verdict to the result of the second model."""
    append(
        result.folder / VERDICTS,
        {
            "source": verdict.source,
            "index": verdict.index,
            "pair": verdict.pair,
            "judge": verdict.judge,
            "name": verdict.name,
            "orders": list(verdict.orders),
            "replies": list(verdict.replies),
            "base": verdict.base,
            "base_name": verdict.base_name,
            "time": time.time(),
        },
    )


def verdicts_of(
    result: EvaluationResult, pairs: Sequence[tuple[ExampleResult, ExampleResult]]
) -> dict[str, dict[tuple[str, int], JudgedPair]]:
    """Read the last verdict on each example by its key, for each judge, in the order of their last verdict.

    Invalid lines, and verdicts on other answers than those of `pairs` (base, tuned), are left out.
    """
    found: dict[str, dict[tuple[str, int], JudgedPair]] = {}
    if not (result.folder / VERDICTS).exists():
        return found
    known = {tuned.key: pair_key(base, tuned) for base, tuned in pairs}
    for line in records(result.folder / VERDICTS):
        one = _read(line)
        if one is not None and known.get(one.key) == one.pair:
            verdicts = found[one.judge] = found.pop(one.judge, {})
            verdicts[one.key] = one
    return found


def stored_verdicts(result: EvaluationResult) -> list[list[JudgedPair]]:
    """The last verdict on each example for each judge and base, in the order of their first verdict."""
    found: dict[tuple[str, str], dict[tuple[str, int], JudgedPair]] = {}
    for line in records(result.folder / VERDICTS):
        if (one := _read(line)) is not None:
            found.setdefault((one.judge, one.base), {})[one.key] = one
    return [list(each.values()) for each in found.values()]


def _read(line: dict[str, object]) -> JudgedPair | None:
    texts = [line.get(name) for name in ("source", "pair", "judge", "name")]
    index, orders, replies = line.get("index"), line.get("orders"), line.get("replies")
    if not all(isinstance(one, str) for one in texts) or not isinstance(index, int) or not isinstance(orders, list):
        return None
    if len(orders) not in {0, 2} or not all(one is None or one in get_args(Outcome) for one in orders):
        return None
    source, pair, judge, name = (str(one) for one in texts)
    said = tuple(str(one) for one in replies) if isinstance(replies, list) else ()
    base, base_name = (str(line.get(key, "")) for key in ("base", "base_name"))
    outcomes = tuple(cast("list[Outcome | None]", orders))
    return JudgedPair(source, index, pair, judge, name, outcomes, said, base, base_name)


def add_vote(result: EvaluationResult, base: EvaluationResult, key: tuple[str, int], vote: Vote | None) -> None:
    """Store a vote; it replaces an earlier one on the same example with the same base. None withdraws it.

    Raises:
        ValueError: `vote` is unknown.
    """
    if vote is not None and vote not in get_args(Vote):
        raise ValueError(f"{vote!r} is no vote. Expected win, tie or lose.")
    record = {"source": key[0], "index": key[1], "base": base.target.weights, "vote": vote, "time": time.time()}
    append(result.folder / VOTES, record)


def votes_of(result: EvaluationResult, base: EvaluationResult) -> dict[tuple[str, int], Vote]:
    """Read the last vote on each example of a result compared with `base`, by `ExampleResult.key`.

    Invalid lines are skipped; an unknown vote withdraws the earlier ones on its example.
    """
    found: dict[tuple[str, int], Vote] = {}
    for one in records(result.folder / VOTES):
        source, index, vote = one.get("source"), one.get("index"), one.get("vote")
        if not isinstance(source, str) or not isinstance(index, int) or one.get("base") != base.target.weights:
            continue
        if isinstance(vote, str) and vote in get_args(Vote):
            found[source, index] = cast("Vote", vote)
        else:
            found.pop((source, index), None)
    return found
