"""Accuracy of a reward model on the pairs of a preference data set.

`python -m llf_core.evaluation.reward_accuracy REWARD_MODEL DATA` prints it as JSON.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from llf_core.evaluation import worker_process
from llf_core.evaluation.config_file import tokenization_of
from llf_core.metrics.wilson_interval import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.data.align import Reading
    from llf_core.data.records import Record
    from llf_core.evaluation.worker_process import Progress
    from llf_core.models.reward_model import RewardModel

T = TypeVar("T")

MODULE = "llf_core.evaluation.reward_accuracy"


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a reward model, with its 95 % interval (Wilson).

    Attributes:
        accuracy: fraction of pairs whose chosen completion has the higher reward; equal rewards count as wrong.
        margin: mean reward of the chosen completions minus that of the rejected ones.
        dropped: number of unusable records by reason.
    """

    accuracy: float
    low: float
    high: float
    pairs: int
    margin: float
    dropped: dict[str, int]


def accuracy_of(chosen: Sequence[float], rejected: Sequence[float], dropped: dict[str, int]) -> Accuracy:
    """Accuracy of finite rewards of one pair or more (RewardBench, arXiv 2403.13787, section 4.2); ties are wrong."""
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
    progress: Progress = worker_process.no_progress,
) -> Accuracy:
    """Measure how often a reward model scores the chosen completion of a preference pair higher than the rejected one.

    The result of a run tokenizes pairs as the run did.

    Args:
        reward_model: see `llf_core.models.reward_model_files.load_reward_model`.
        data: data set, as in `dataset`. The caller has to make sure that the reward model was not trained on it.
        dataset_dir: folder of named data sets; None for `data`.
        most: maximum number of pairs, at least 1, taken from the beginning; None for all.
    """
    from llf_core.config import RunConfig
    from llf_core.models.reward_model_files import config_of_run, load_reward_model

    if most is not None and most < 1:
        raise ValueError(f"The maximum number of pairs is {most}. Expected an integer of at least 1.")
    asked = {"stage": "rm", "dataset": data} | ({} if dataset_dir is None else {"dataset_dir": dataset_dir})
    run = config_of_run(reward_model)
    config = RunConfig.load(asked | tokenization_of(run))
    dropped: Counter[str] = Counter()

    def told(done: int, total: int) -> None:
        progress("Scoring responses", done, total)

    if run is None:
        talks = [both for pair in _pairs(config, most, dropped, _Talks) for both in pair]
        scores = load_reward_model(reward_model).scores(talks, progress=told)
    else:
        scorer = load_reward_model(reward_model)
        ids = [both for pair in _pairs(config, most, dropped, partial(_Tokens, config, scorer)) for both in pair]
        scores = scorer.scores_of_ids(ids, progress=told)
    return accuracy_of(scores[::2], scores[1::2], dict(dropped))


class _Talks:
    """Pairs as conversations, which the reward model's own template renders."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __call__(self, record: Record) -> tuple[list[dict[str, object]], ...]:
        talk = self._reading.align(record.row)
        talk.canonical()  # refuses text that is not valid Unicode, which no tokenizer can encode
        return tuple([*map(dict, talk.messages[:-1]), dict(one)] for one in (talk.messages[-1], talk.rejected or {}))


class _Tokens:
    """Pairs tokenized as by a run of stage rm."""

    def __init__(self, config: RunConfig, scorer: RewardModel, reading: Reading) -> None:
        from llf_core.data.build import Builder, EncodingSettings, ProgressReporter
        from llf_core.data.preparation import template_of

        template = template_of(config, scorer.tokenizer)
        builder = Builder(EncodingSettings.of(config), scorer.tokenizer, template, ProgressReporter(None, None))
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
    kind: Callable[[Reading], Callable[[Record], tuple[T, ...]]],
) -> Iterator[tuple[T, ...]]:
    """Unusable records are counted by reason."""
    from itertools import islice

    from llf_core.data import DataError
    from llf_core.data.align import PEEK_ROWS, decide
    from llf_core.data.conversation import PAIRS
    from llf_core.data.errors import BadExample
    from llf_core.data.load import open_source, read_source
    from llf_core.data.records import BrokenLine
    from llf_core.data.sources import sources_of

    count = 0
    for source in sources_of(config, config.data.dataset or ()):
        opened = open_source(source, config.model.cache_dir)
        peeked = islice(read_source(opened, None, config.training.seed), PEEK_ROWS)
        rows = [one.row for one in peeked if not isinstance(one, BrokenLine)]
        pair = kind(decide(source, rows, PAIRS)) if rows else None
        for record in read_source(opened, None, config.training.seed):
            if count == most:
                return
            if pair is None or isinstance(record, BrokenLine):
                dropped[record.reason if isinstance(record, BrokenLine) else "it cannot be read"] += 1
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
    progress: Progress = worker_process.no_progress,
    trust: bool = False,
) -> Accuracy:
    """Call `reward_accuracy` in a child process: the caller loads neither a model nor torch."""
    given = {"dir": dataset_dir, "most": most}
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    named = ["--", reward_model, data]
    found = worker_process.run_in_child(MODULE, *options, *named, home=home, progress=progress, trust=trust)
    return Accuracy(**found)


def main() -> None:
    """Print the accuracy as a line of JSON, or the error: the child process of `reward_accuracy_in_child`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reward_model")
    parser.add_argument("data")
    parser.add_argument("--dir")
    parser.add_argument("--most", type=int)
    asked = parser.parse_args()
    worker_process.print_result(
        lambda progress: asdict(
            reward_accuracy(asked.reward_model, asked.data, dataset_dir=asked.dir, most=asked.most, progress=progress)
        )
    )


if __name__ == "__main__":
    main()
