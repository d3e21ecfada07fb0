"""Results of an evaluation as the page shows them: tables of metrics and examples; their summary in saved notebooks."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.evaluation.comparison import (
    comparable,
    difference_of,
    most_changed_first,
    pairs_of,
    score_of,
    worst_first,
)
from llf_core.evaluation.judge.win_rate import win_rates_of
from llf_core.evaluation.report import data_text, label_text
from llf_core.metrics.wilson_interval import wilson_interval
from llf_core.runs.evaluations import examples_of, verdicts_of, votes_of
from llf_core.runs.formatting import amount_text, share
from llf_core.untrusted import visible
from llf_widgets.cell_output import plain_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.evaluation.judge.win_rate import JudgedWinRate
    from llf_core.metrics.paired import Difference
    from llf_core.runs.evaluations import EvaluationResult, JudgedPair, MetricValue, Vote

PAGE = 10
ORDERS = {"changed": "Most changed first", "worst": "Worst first", "data": "In the order of the data"}
MAX_TEXT = 4000
"""Maximum characters of a prompt or answer on the page; the file has all of it."""
OUTCOMES = {"win": "better", "tie": "tie", "lose": "worse"}
"""Verdicts on the judged model, as the page shows them."""


class ResultTables:
    """Tables of the results of one evaluation (at least one), which compare all further results with the first one."""

    def __init__(self, results: Sequence[EvaluationResult]) -> None:
        self.results = tuple(results)
        self._examples = [examples_of(one) for one in self.results]
        self._pairs = [
            pairs_of(self._examples[0], examples) if comparable(self.results[0], result) else []
            for result, examples in zip(self.results[1:], self._examples[1:], strict=True)
        ]
        self._by_key = [{one.key: one for one in examples} for examples in self._examples]

    @property
    def name(self) -> str:
        """The data or the task."""
        return str(self.results[0].settings.get("task") or ", ".join(self.results[0].data.names))

    @property
    def data_text(self) -> str:
        """The data in a sentence, see `llf_core.evaluation.report.data_text`."""
        return data_text(self.results[0], self.name)

    @property
    def answered(self) -> bool:
        """Whether the models have generated answers, which a person can vote on."""
        return any(one.answer is not None for one in self._examples[0])

    def metrics(self) -> list[dict[str, Any]]:
        """One row for each metric of the first result.

        Returns:
            `name`, `label`, `unit`, `better` (`higher` or `lower`), `values` (for each result `text` and `interval`),
            `differences` (for each further result `verdict` and `sentence`) and `sources` (for each data set `name` and
            `values` as texts; empty for one).
        """
        return [self._row(value) for value in self.results[0].metrics]

    def _row(self, value: MetricValue) -> dict[str, object]:
        values = [one.metric(value.name) for one in self.results]
        found = [
            difference_of(value, pairs) if other is not None and pairs else None
            for other, pairs in zip(values[1:], self._pairs, strict=True)
        ]
        return {
            "name": value.name,
            "label": label_text(value),
            "unit": value.unit,
            "better": "higher" if value.higher_is_better else "lower",
            "values": [_value_json(one) for one in values],
            "differences": [
                {"verdict": "", "sentence": "not measured" if other is None else "other examples"}
                if one is None
                else {"verdict": one.verdict, "sentence": one.sentence}
                for one, other in zip(found, values[1:], strict=True)
            ],
            "sources": [
                {"name": source, "values": [amount_text(_of_source(one, source), value.unit) for one in values]}
                for source in (value.by_source if len(value.by_source) > 1 else {})
            ],
        }

    def judged(self) -> list[dict[str, Any]]:
        """One row, as `metrics` returns them, for each judge and rubric with verdicts beside the results."""
        names: dict[str, str] = {}
        found: dict[str, list[JudgedWinRate | None]] = {}
        for place, (result, pairs) in enumerate(zip(self.results[1:], self._pairs, strict=True)):
            for judge, rate in win_rates_of(result, pairs).items():
                names[judge] = rate.judge
                found.setdefault(judge, [None] * len(self._pairs))[place] = rate
        return [
            {
                "name": f"judge {judge}",
                "label": f"Judge: win rate ({names[judge]})",
                "unit": "%",
                "better": "higher",
                "judge": True,
                "values": [{"text": "", "interval": ""}, *map(_rate_json, rates)],
                "differences": [
                    {"verdict": "", "sentence": "not judged"}
                    if one is None
                    else {"verdict": one.verdict, "sentence": one.sentence}
                    for one in rates
                ],
                "sources": [],
            }
            for judge, rates in found.items()
        ]

    def votes(self) -> list[list[Vote]]:
        """The votes of a person on each further result."""
        return [list(votes_of(one, self.results[0]).values()) for one in self.results[1:]]

    def difference(self, metric: str) -> Difference:
        """The difference between the last result and the first one, see `llf_core.metrics.paired.difference`."""
        value = self.results[0].metric(metric)
        if value is None:
            raise ValueError(f"There is no metric {metric!r}.")
        if not self._pairs[-1]:
            raise ValueError("The last model and the first one were measured on other examples.")
        return difference_of(value, self._pairs[-1])

    def examples(self, metric: str, order: str, offset: int, limit: int = PAGE) -> dict[str, Any]:
        """A page of examples.

        Args:
            order: one of `ORDERS`, of the last result. `changed` compares it with the first one; where they cannot be
                compared, the worst come first.
            offset: number of examples to skip; beyond the end, the last example is shown.

        Returns:
            `metric`, `order`, `offset`, `total` and `rows`: `source`, `index`, `prompt`, `reference`, `vote` (None
            without one) and `models`: for each result `answer` (None for none), `score` and the `verdicts` of judges,
            as texts.
        """
        value = self.results[0].metric(metric)
        if value is None or order not in ORDERS:
            raise ValueError(f"There is no metric {metric[:40]!r}, or no order {order[:40]!r}.")
        keys = self._sorted(value, order)
        votes = votes_of(self.results[-1], self.results[0]) if len(self.results) > 1 else {}
        verdicts: list[dict[str, dict[tuple[str, int], JudgedPair]]] = [{}]
        verdicts += [
            verdicts_of(result, [(one.base, one.tuned) for one in pairs])
            for result, pairs in zip(self.results[1:], self._pairs, strict=True)
        ]
        offset = min(max(offset, 0), max(len(keys) - 1, 0))
        return {
            "metric": metric,
            "order": order,
            "offset": offset,
            "total": len(keys),
            "rows": [self._example(key, value, votes.get(key), verdicts) for key in keys[offset : offset + limit]],
        }

    def _sorted(self, value: MetricValue, order: str) -> list[tuple[str, int]]:
        if order == "data":
            return [one.key for one in self._examples[0]]
        if order == "changed" and self._pairs and self._pairs[-1]:
            return [pair.tuned.key for pair in most_changed_first(self._pairs[-1], value)]
        return [one.key for one in worst_first(self._examples[-1], value)]

    def _example(
        self,
        key: tuple[str, int],
        value: MetricValue,
        vote: Vote | None,
        verdicts: Sequence[dict[str, dict[tuple[str, int], JudgedPair]]],
    ) -> dict[str, object]:
        found = [by_key.get(key) for by_key in self._by_key]
        first = next(one for one in found if one is not None)
        return {
            "source": key[0],
            "index": key[1],
            "prompt": _cut("\n\n".join(_message_text(one) for one in first.prompt)),
            "reference": None if first.reference is None else _cut(first.reference),
            "vote": vote,
            "models": [
                {
                    "answer": None if one is None or one.answer is None else _cut(one.answer),
                    "score": "-" if one is None else amount_text(score_of(one, value.name), value.unit),
                    "verdicts": [_verdict_json(of[key]) for of in judges.values() if key in of],
                }
                for one, judges in zip(found, verdicts, strict=True)
            ],
        }


def _value_json(value: MetricValue | None) -> dict[str, str]:
    if value is None:
        return {"text": "-", "interval": ""}
    bounds = (
        ""
        if value.low is None or value.high is None
        else f"{amount_text(value.low, value.unit)} to {amount_text(value.high, value.unit)}"
    )
    return {"text": amount_text(value.value, value.unit), "interval": bounds}


def _rate_json(rate: JudgedWinRate | None) -> dict[str, str]:
    if rate is None or not math.isfinite(rate.rate):
        return {"text": "-", "interval": ""}
    bounds = f"{share(rate.low)} to {share(rate.high)}" if math.isfinite(rate.low) else ""
    return {"text": share(rate.rate), "interval": bounds}


def _verdict_json(pair: JudgedPair) -> dict[str, str]:
    """A verdict for the page: `text` (`NAME: worse`), and `replies` of the judge, empty for equal answers."""
    if not pair.orders:
        text = "tie: equal answers"
    elif pair.outcome is None:
        text = "no verdict"
    elif pair.flipped:
        text = "tie: changed with the order"
    else:
        text = OUTCOMES[pair.outcome]
    return {"text": f"{pair.name}: {text}", "replies": _cut("\n\n".join(pair.replies))}


def _of_source(value: MetricValue | None, source: str) -> float:
    return math.nan if value is None else value.by_source.get(source, math.nan)


def votes_text(votes: Sequence[Vote]) -> str:
    """A sentence on the votes on a model, with Wilson's interval and a tie as one half; empty without votes."""
    if not votes:
        return ""
    wins, ties, losses = (sum(one == kind for one in votes) for kind in ("win", "tie", "lose"))
    low, high = wilson_interval(wins + ties / 2, len(votes))
    counts = ", ".join(
        with_unit(count, name) for count, name in ((wins, "win"), (ties, "tie"), (losses, "loss")) if count
    )
    rate = (wins + ties / 2) / len(votes)
    return f"{share(rate)} of {with_unit(len(votes), 'vote')} ({counts}), 95 % interval {share(low)} to {share(high)}"


def _message_text(message: dict[str, object]) -> str:
    role, content = str(message.get("role", "")), message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "[media]")) for part in content if isinstance(part, dict))
    return str(content or "") if role == "user" else f"{role}: {content or ''}"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text):,} characters)"


def summary_text(note: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as plain text, for frontends without HTML."""
    if not rows:
        return f"Evaluate: {note or 'no result yet'}"
    lines = []
    for row in rows:
        values = ", ".join(f"{name} {value['text']}" for name, value in zip(columns, row["values"], strict=True))
        verdicts = "; ".join(one["sentence"] for one in row["differences"])
        label = f"{row['group']}, {row['label']}" if row.get("group") else row["label"]
        lines.append(f"{label}: {values}" + (f" ({verdicts})" if verdicts else ""))
    return visible("\n".join(lines))


def summary_html(note: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as HTML without scripts; all texts are escaped."""
    if not rows:
        return f"<p>Evaluate: {escape(note or 'no result yet')}</p>"

    further = columns[1:] if len(columns) > 1 else ()
    head = ["Metric", *columns, *(f"{name} against {columns[0]}" for name in further)]
    body = [
        [
            f"{row['group']}: {row['label']}" if row.get("group") else str(row["label"]),
            *(f"{one['text']} ({one['interval']})" if one["interval"] else one["text"] for one in row["values"]),
            *(one["sentence"] for one in row["differences"]),
        ]
        for row in rows
    ]
    return plain_table(head, body)
