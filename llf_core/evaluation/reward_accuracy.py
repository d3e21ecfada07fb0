"""How often a reward model ranks the pairs of a preference data set as people did.

`python -m llf_core.evaluation.reward_accuracy REWARD_MODEL DATA` prints it as JSON; notebooks and the CLI start it as a
child process, so that no view ever holds a model.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llf_core.evaluation import worker_process
from llf_core.evaluation.confidence_interval import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.data.align import Reading
    from llf_core.data.records import Record
    from llf_core.evaluation.worker_process import Progress
    from llf_core.models.reward_model import Scorer

MODULE = "llf_core.evaluation.reward_accuracy"
READ = (
    "template", "tool_format", "enable_thinking", "preserve_thinking", "default_system", "cutoff_len",
    "cutoff_strategy",
)  # fmt: skip
"""Keys of a run's config that decide how it reads a pair."""


@dataclass(frozen=True)
class Accuracy:
    """How a reward model ranks pairs.

    Attributes:
        accuracy: share of the pairs whose better answer has the higher reward; equal rewards are wrong.
        low: lower end of its 95 % band (Wilson).
        high: upper end.
        pairs: how many were ranked.
        margin: mean of the better answers' rewards less the others'.
        dropped: by reason, how many records give no pair.
    """

    accuracy: float
    low: float
    high: float
    pairs: int
    margin: float
    dropped: dict[str, int]


def ranked(chosen: Sequence[float], rejected: Sequence[float], dropped: dict[str, int]) -> Accuracy:
    """Counts the rewards of pairs, at least one."""
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    right = sum(margin > 0 for margin in margins)
    low, high = wilson_interval(right, len(margins))
    return Accuracy(right / len(margins), low, high, len(margins), sum(margins) / len(margins), dropped)


def reward_accuracy(
    reward_model: str,
    data: str,
    *,
    dataset_dir: str | None = None,
    most: int | None = None,
    progress: Progress = worker_process.silent,
) -> Accuracy:
    """Scores both answers of each pair of a preference data set, which the result of a run reads as the run did.

    Args:
        reward_model: see `llf_core.models.reward_model.load_scorer`.
        data: a data set as `dataset` has it. That it was held out from the reward model's training is up to the caller.
        dataset_dir: where named data sets are.
        most: at most the first so many pairs.
        progress: called with what is done, how many, and of how many.

    Raises:
        ModelError: the reward model is not there or is none.
        DataError: the data set is not there, holds no pairs, or none that can be used.
    """
    from llf_core.config import RunConfig
    from llf_core.models.reward_model import load_scorer, run_of

    asked = {"stage": "rm", "dataset": data} | ({} if dataset_dir is None else {"dataset_dir": dataset_dir})
    run = run_of(reward_model)
    if run is not None:
        asked |= {key: value for key in READ if (value := run.get(key)) is not None}
    config = RunConfig.load(asked)
    dropped: Counter[str] = Counter()

    def told(done: int, total: int) -> None:
        progress("Scoring answers", done, total)

    if run is None:
        talks = [both for pair in _pairs(config, most, dropped, _Talks) for both in pair]
        scores = load_scorer(reward_model).scores(talks, progress=told)
    else:
        scorer = load_scorer(reward_model)
        ids = [both for pair in _pairs(config, most, dropped, partial(_Tokens, config, scorer)) for both in pair]
        scores = scorer.scores_of_ids(ids, progress=told)
    return ranked(scores[::2], scores[1::2], dict(dropped))


class _Talks:
    """Reads pairs as conversations, which a reward model's own template makes texts of."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __call__(self, record: Record) -> tuple[list[dict[str, Any]], ...]:
        talk = self._reading.align(record.row)
        return tuple([*map(dict, talk.messages[:-1]), dict(one)] for one in (talk.messages[-1], talk.rejected or {}))


class _Tokens:
    """Reads pairs as a run of stage rm reads them."""

    def __init__(self, config: RunConfig, scorer: Scorer, reading: Reading) -> None:
        from llf_core.data.build import Builder, Settings, Told
        from llf_core.data.prepare import template_of

        template = template_of(config, scorer.tokenizer)
        builder = Builder(Settings.of(config), scorer.tokenizer, template, Told(None, None))
        self._encoder = builder.encoder(reading)

    def __call__(self, record: Record) -> tuple[list[int], ...]:
        from llf_core.data.errors import BadExample

        chunk = self._encoder.encode([record])
        if chunk.dropped:
            raise BadExample(chunk.dropped[0][1])
        (example,) = chunk.examples
        return list(example.ids), list((example.more or {})["rejected_ids"])


def _pairs(
    config: RunConfig,
    most: int | None,
    dropped: Counter[str],
    kind: Callable[[Reading], Callable[[Record], tuple[Any, ...]]],
) -> Iterator[tuple[Any, ...]]:
    """Both answers of the pairs of a config's data sets, with their question; why others are left out is counted.

    Args:
        config: names the data sets.
        most: pairs at most.
        dropped: counts.
        kind: makes of a reading what reads a record.

    Raises:
        DataError: there is none.
    """
    from itertools import islice

    from llf_core.data import DataError
    from llf_core.data.align import decide
    from llf_core.data.build import PEEKED
    from llf_core.data.errors import BadExample
    from llf_core.data.formats.conversation import PAIRS
    from llf_core.data.load import open_source, read_source
    from llf_core.data.prepare import sources_of
    from llf_core.data.records import Flaw

    count = 0
    for source in sources_of(config, config.data.dataset or ()):
        opened = open_source(source, config.model.cache_dir)
        peeked = islice(read_source(opened, None, config.training.seed), PEEKED)
        rows = [one.row for one in peeked if not isinstance(one, Flaw)]
        pair = kind(decide(source, rows, PAIRS)) if rows else None
        for record in read_source(opened, None, config.training.seed):
            if count == most:
                return
            if pair is None or isinstance(record, Flaw):
                dropped[record.reason if isinstance(record, Flaw) else "it cannot be read"] += 1
                continue
            try:
                found = pair(record)
            except BadExample as error:
                dropped[str(error)] += 1
                continue
            count += 1
            yield found
    if not count:
        reasons = ", ".join(f"{number:,} since {why}" for why, number in dropped.most_common(3))
        raise DataError(f"No pair of {', '.join(config.data.dataset or ())} can be used: {reasons or 'it is empty'}.")


def reward_accuracy_in_child(  # noqa: PLR0913 - as `reward_accuracy`
    reward_model: str,
    data: str,
    *,
    dataset_dir: str | None = None,
    most: int | None = None,
    home: Path | None = None,
    progress: Progress = worker_process.silent,
    trust: bool = False,
) -> Accuracy:
    """`reward_accuracy` in a process of its own: the caller loads no model and no torch. An interrupt ends it.

    `trust` allows foreign code.

    Raises:
        RuntimeError: why it fails.
    """
    given = {"dir": dataset_dir, "most": most}
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    named = ["--", reward_model, data]
    found: dict[str, Any] = worker_process.ask(MODULE, *options, *named, home=home, progress=progress, trust=trust)
    return Accuracy(**found)


def main() -> None:
    """Prints the accuracy as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reward_model")
    parser.add_argument("data")
    parser.add_argument("--dir")
    parser.add_argument("--most", type=int)
    asked = parser.parse_args()
    worker_process.answer(
        lambda progress: asdict(
            reward_accuracy(asked.reward_model, asked.data, dataset_dir=asked.dir, most=asked.most, progress=progress)
        )
    )


if __name__ == "__main__":
    main()
