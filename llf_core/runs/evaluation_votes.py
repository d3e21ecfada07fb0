"""Votes of a person on the answers of two models: a file `votes.jsonl` beside the result of the second one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, cast, get_args

from llf_core.runs.jsonl import append, records

if TYPE_CHECKING:
    from llf_core.runs.evaluations import EvaluationResult

VOTES = "votes.jsonl"
Vote = Literal["win", "tie", "lose"]


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
