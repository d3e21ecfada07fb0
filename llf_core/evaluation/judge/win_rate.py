"""The win rate of a model by the verdicts of a judge. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.number_format import with_unit
from llf_core.metrics.interval import interval
from llf_core.metrics.paired import MIN_EXAMPLES, Verdict
from llf_core.runs.evaluations import stored_verdicts, verdicts_of
from llf_core.runs.formatting import share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llf_core.evaluation.comparison import ExamplePair
    from llf_core.runs.evaluations import EvaluationResult, JudgedPair

POINTS = {"win": 1.0, "tie": 0.5, "lose": 0.0}
EVEN = 0.5


@dataclass(frozen=True)
class JudgedWinRate:
    """The win rate of a model against another one by a judge, with its 95 % interval over the examples.

    Attributes:
        rate: fraction of the pairs that the model wins; a tie counts one half. NaN without a verdict, as `low` and
            `high`, which also need more than a single tie.
        ties: number of pairs that are equal, have equal answers, or whose verdict changes with the order.
        compared: number of pairs with a verdict in both orders of different answers.
        flipped: how many of these have another verdict in the other order.
        unreadable: number of replies without a verdict. Their pairs do not count.
        verdict: `better` or `worse` where the interval excludes one half, else `no difference`; `too few examples`
            below `MIN_EXAMPLES` pairs that count.
    """

    judge: str
    rate: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    compared: int
    flipped: int
    replies: int
    unreadable: int
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """The verdict with its numbers."""
        count = self.wins + self.ties + self.losses
        said = [
            f"{self.unreadable:,} of {self.replies:,} replies without a verdict" if self.unreadable else "",
            f"{self.flipped:,} of {with_unit(self.compared, 'verdict')} changed with the order "
            f"({share(self.flipped / self.compared)}) and count as ties"
            if self.compared
            else "",
        ]
        further = "".join(f"; {one}" for one in said if one)
        counts = f"{with_unit(self.wins, 'win')}, {with_unit(self.ties, 'tie')}, {self.losses:,} lost"
        if self.verdict == "too few examples":
            return f"too few examples: {counts}. Expected at least {MIN_EXAMPLES} with a verdict{further}"
        return (
            f"{self.verdict}: {share(self.rate)} of {with_unit(count, 'pair')} ({counts}), 95 % interval "
            f"{share(self.low)} to {share(self.high)}{further}"
        )


def win_rate_of(verdicts: Iterable[JudgedPair]) -> JudgedWinRate:
    """Compute the win rate from at least one verdict of one judge, each on another pair.

    A tie counts one half (AlpacaEval, github.com/tatsu-lab/alpaca_eval). A verdict that changes with the order is a tie
    (arXiv 2306.05685, section 3.4).
    """
    found = list(verdicts)
    outcomes = [one.outcome for one in found]
    scores = [POINTS[one] for one in outcomes if one is not None]
    value = interval(scores)
    wins, ties, losses = (outcomes.count(kind) for kind in ("win", "tie", "lose"))
    both = [one for one in found if one.orders and None not in one.orders]
    rate, low, high = (float("nan") if one is None else one for one in (value.value, value.low, value.high))
    verdict: Verdict = "no difference"
    if len(scores) < MIN_EXAMPLES:
        verdict = "too few examples"
    elif low > EVEN or high < EVEN:
        verdict = "better" if low > EVEN else "worse"
    replies = [order for one in found for order in one.orders]
    return JudgedWinRate(
        found[0].name,
        rate,
        low,
        high,
        wins,
        ties,
        losses,
        len(both),
        sum(one.flipped for one in both),
        len(replies),
        replies.count(None),
        verdict,
    )


def win_rates_of(result: EvaluationResult, pairs: Sequence[ExamplePair]) -> dict[str, JudgedWinRate]:
    """The win rate of a result by each judge whose verdicts are stored beside it, by the key of the judge."""
    found = verdicts_of(result, [(one.base, one.tuned) for one in pairs])
    return {judge: win_rate_of(verdicts.values()) for judge, verdicts in found.items()}


@dataclass(frozen=True)
class StoredWinRate:
    """A win rate, with name and weights (`EvaluatedTarget.weights`) of the model that was compared with."""

    base: str
    weights: str
    judge: str
    rate: JudgedWinRate


def stored_win_rates(result: EvaluationResult) -> list[StoredWinRate]:
    """The win rates of a result by the stored verdicts, without reading the answers."""
    return [
        StoredWinRate(verdicts[-1].base_name, verdicts[-1].base, verdicts[-1].judge, win_rate_of(verdicts))
        for verdicts in stored_verdicts(result)
    ]
