"""Collates groups of two answers to one prompt; the prompt is computed once for both answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.ignore_index import IGNORED
from llf_core.data.collate import Collator
from llf_core.data.media_limits import DEFAULT_LIMITS, MediaLimits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    Numbers = NDArray[np.int64]
    Answer = tuple[Numbers, Numbers]

SECOND_ANSWER = ("rejected_ids", "rejected_labels")


@dataclass(frozen=True)
class PairCollator:
    """Collates groups of two answers into batches.

    If the model supports forks, the common prefix of a group occurs once:

    ```
    prompt 5 6 7, answers 8 9 and 10     ->  input_ids      [[5, 6, 7, 8, 9, 10]]
                                             position_ids   [[0, 1, 2, 3, 4, 3]]
                                             cu_seq_lens_q  [0, 6]
                                             forks          [[3, 5]]   start of the first and the second branch
                                             predictors     [2, 3, 2]  positions whose hidden states predict the targets
                                             targets        [8, 9, 10]
                                             answers        [0, 0, 1]  answer that each target belongs to
                                             ends           [4, 5]     last token of each answer
                                             groups         1
    ```

    Otherwise a group is two consecutive documents, or two padded rows; `predictors` and `ends` then count across all
    rows.

    Attributes:
        fork: whether the common prefix of a group may occur once.
        second: columns of the second answer's token ids and labels.
    """

    tokenizer: PreTrainedTokenizerBase
    processor: ProcessorMixin | None = None
    flatten: bool = False
    fill: int = 1
    fork: bool = False
    second: tuple[str, str] = SECOND_ANSWER
    limits: MediaLimits = DEFAULT_LIMITS

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate a batch.

        Args:
            features: groups with `input_ids` and `labels`, the same of the second answer (`[seq]` each), and optionally
                `number`, `reference` (`[2]`, log-probabilities of the reference policy), `good`, and of a multimodal
                model `seen` and `rejected_seen`.

        Returns:
            The model's inputs, see `Collator`, without `labels`, and the columns shown above: `predictors`, `targets`,
            `answers` (`[N]`, int64, N trained tokens), `ends` (`[2 * groups]`, int64), `forks` (`[groups, 2]`, int32,
            only if prefixes occur once), `groups` (int); `numbers` (int64) and `good` (bool, `[groups]` each),
            `reference` (`[groups, 2]`, dtype as given) if all groups have them.
        """
        import torch

        ids, labels = self.second
        pairs: list[tuple[Answer, Answer]] = [
            ((_array(one["input_ids"]), _array(one["labels"])), (_array(one[ids]), _array(one[labels])))
            for one in features
        ]
        if any(one.get("seen") for one in features):
            batch = self._apart(pairs, [text for one in features for text in (one["seen"], one["rejected_seen"])])
        else:
            batch = self._forked(pairs) if self.flatten and self.fork else self._apart(pairs)
        batch["groups"] = len(pairs)
        for name, column, dtype in (
            ("numbers", "number", torch.int64), ("good", "good", torch.bool), ("reference", "reference", None),
        ):  # fmt: skip
            values = [one.get(column) for one in features]
            if all(value is not None for value in values):
                batch[name] = torch.tensor(np.asarray(values), dtype=dtype)
        return batch

    def _apart(self, pairs: Sequence[tuple[Answer, Answer]], seen: Sequence[str] = ()) -> dict[str, object]:
        """Answers as documents of their own; `seen` are their texts and media, if any of them has media."""
        answers = [answer for pair in pairs for answer in pair]
        plain = Collator(self.tokenizer, self.processor, flatten=self.flatten, limits=self.limits)
        texts = [{"seen": one} for one in seen] or [{}] * len(answers)
        batch = plain(
            [
                {"input_ids": ids, "labels": ids if self.processor is None else labels, **text}
                for (ids, labels), text in zip(answers, texts, strict=True)
            ]
        )
        del batch["labels"]
        if "cu_seq_lens_q" in batch:
            starts = batch["cu_seq_lens_q"][:-1].tolist()
        else:
            starts = [row * batch["input_ids"].shape[1] for row in range(len(answers))]
        places = [start + np.arange(len(ids)) for start, (ids, _) in zip(starts, answers, strict=True)]
        return batch | _learned(answers, places)

    def _forked(self, pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, object]:
        import torch

        ids: list[Numbers] = []
        positions: list[Numbers] = []
        places: list[Numbers] = []
        forks, borders = [], [0]
        for (first, _), (second, _) in pairs:
            start, shared = borders[-1], common_prefix_length(first, second)
            split = start + len(first)
            ids += [first, second[shared:]]
            positions += [np.arange(len(first)), np.arange(shared, len(second))]
            places += [
                np.arange(start, split),
                np.concatenate([np.arange(start, start + shared), split + np.arange(len(second) - shared)]),
            ]
            forks.append((start + shared, split))
            borders.append(split + len(second) - shared)
        bounds = torch.tensor(borders, dtype=torch.int32)
        longest = int(bounds.diff().max())
        batch = {
            "input_ids": torch.from_numpy(np.concatenate(ids))[None],
            "position_ids": torch.from_numpy(np.concatenate(positions))[None],
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
            "forks": torch.tensor(forks, dtype=torch.int32),
        }
        return batch | _learned([answer for pair in pairs for answer in pair], places)


def common_prefix_length(first: Numbers, second: Numbers) -> int:
    """Length of the common prefix of two sequences of token ids `[seq]`, int64, without the last token of either.

    The last token is left out so that each branch has at least one token of its own.
    """
    shortest = min(len(first), len(second)) - 1
    differs = np.flatnonzero(first[:shortest] != second[:shortest])
    return int(differs[0]) if len(differs) else shortest


def _array(values: ArrayLike) -> Numbers:
    return np.asarray(values, dtype=np.int64)


def _learned(answers: Sequence[Answer], places: Sequence[Numbers]) -> dict[str, object]:
    """Positions that predict the trained tokens of answers. `places` has the positions of each answer's tokens."""
    import torch

    predictors, targets, owners = [], [], []
    for number, ((_, labels), own) in enumerate(zip(answers, places, strict=True)):
        learned = np.flatnonzero(labels[1:] != IGNORED) + 1
        predictors.append(own[learned - 1])
        targets.append(labels[learned])
        owners.append(np.full(len(learned), number))
    return {
        "predictors": torch.from_numpy(np.concatenate(predictors)),
        "targets": torch.from_numpy(np.concatenate(targets)),
        "answers": torch.from_numpy(np.concatenate(owners)),
        "ends": torch.tensor([int(own[-1]) for own in places]),
    }
