"""How often a reward model ranks the pairs of a preference data set as people did.

`python -m llf_core.evaluation.preferences REWARD_MODEL DATA` prints it as JSON; notebooks and the CLI start it as a
child process, so that no view ever holds a model.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llf_core.evaluation import child
from llf_core.evaluation.bands import wilson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.data.align import Reading
    from llf_core.data.formats.conversation import Conversation
    from llf_core.data.records import Read
    from llf_core.evaluation.child import Progress

MODULE = "llf_core.evaluation.preferences"


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
    low, high = wilson(right, len(margins))
    return Accuracy(right / len(margins), low, high, len(margins), sum(margins) / len(margins), dropped)


def reward_accuracy(
    reward_model: str,
    data: str,
    *,
    dataset_dir: str | None = None,
    most: int | None = None,
    progress: Progress = child.silent,
) -> Accuracy:
    """Scores both answers of each pair of a preference data set.

    Args:
        reward_model: see `llf_core.models.reward.load_scorer`.
        data: a data set as `dataset` has it. That it was held out from the reward model's training is up to the caller.
        dataset_dir: where named data sets are.
        most: at most the first so many pairs.
        progress: called with what is done, how many, and of how many.

    Raises:
        ModelError: the reward model is not there or is none.
        DataError: the data set is not there, holds no pairs, or none that can be used.
    """
    from llf_core.config import RunConfig
    from llf_core.models.reward import load_scorer

    folder = {} if dataset_dir is None else {"dataset_dir": dataset_dir}
    config = RunConfig.load({"stage": "rm", "dataset": data, **folder})
    dropped: Counter[str] = Counter()
    talks = list(_pairs(config, most, dropped))
    scorer = load_scorer(reward_model)
    texts = [
        [*map(dict, talk.messages[:-1]), dict(answer)]
        for talk in talks
        for answer in (talk.messages[-1], talk.rejected or {})
    ]
    scores = scorer.scores(texts, progress=lambda done, total: progress("Scoring answers", done, total))
    return ranked(scores[::2], scores[1::2], dict(dropped))


def _pairs(config: RunConfig, most: int | None, dropped: Counter[str]) -> Iterator[Conversation]:
    """The pairs of a config's data sets; why others are left out is counted.

    Raises:
        DataError: there is none.
    """
    from itertools import islice

    from llf_core.data import DataError
    from llf_core.data.align import decide
    from llf_core.data.build import PEEKED
    from llf_core.data.formats.conversation import PAIRS
    from llf_core.data.load import open_source, read_source
    from llf_core.data.prepare import sources_of
    from llf_core.data.records import Flaw

    count = 0
    for source in sources_of(config, config.data.dataset or ()):
        opened = open_source(source, config.model.cache_dir)
        peeked = islice(read_source(opened, None, config.training.seed), PEEKED)
        rows = [one.row for one in peeked if not isinstance(one, Flaw)]
        reading = decide(source, rows, PAIRS) if rows else None
        for record in read_source(opened, None, config.training.seed):
            if count == most:
                return
            found = _pair(reading, record)
            if isinstance(found, str):
                dropped[found] += 1
            else:
                count += 1
                yield found
    if not count:
        reasons = ", ".join(f"{number:,} since {why}" for why, number in dropped.most_common(3))
        raise DataError(f"No pair of {', '.join(config.data.dataset or ())} can be used: {reasons or 'it is empty'}.")


def _pair(reading: Reading | None, record: Read) -> Conversation | str:
    """What a record says, or why it is left out."""
    from llf_core.data.errors import BadExample
    from llf_core.data.records import Flaw

    if reading is None or isinstance(record, Flaw):
        return record.reason if isinstance(record, Flaw) else "it cannot be read"
    try:
        return reading.align(record.row)
    except BadExample as error:
        return str(error)


def reward_accuracy_in_child(  # noqa: PLR0913 - as `reward_accuracy`
    reward_model: str,
    data: str,
    *,
    dataset_dir: str | None = None,
    most: int | None = None,
    home: Path | None = None,
    progress: Progress = child.silent,
) -> Accuracy:
    """`reward_accuracy` in a process of its own: the caller loads no model and no torch. An interrupt ends it.

    Raises:
        RuntimeError: why it fails.
    """
    given = {"dir": dataset_dir, "most": most}
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    found: dict[str, Any] = child.ask(MODULE, *options, "--", reward_model, data, home=home, progress=progress)
    return Accuracy(**found)


def main() -> None:
    """Prints the accuracy as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reward_model")
    parser.add_argument("data")
    parser.add_argument("--dir")
    parser.add_argument("--most", type=int)
    asked = parser.parse_args()
    child.answer(
        lambda progress: asdict(
            reward_accuracy(asked.reward_model, asked.data, dataset_dir=asked.dir, most=asked.most, progress=progress)
        )
    )


if __name__ == "__main__":
    main()
