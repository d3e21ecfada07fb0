"""Collates examples of different lengths into a batch (flattened or padded), and splits a batch into smaller ones.

Of a pair of answers to one prompt, the prompt is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.data import IGNORED
from llf_core.data.errors import BadExample, DataError
from llf_core.data.media import PREFIX_ATTENTION, process, stored_media
from llf_core.data.media_files import DEFAULT_LIMITS, MediaLimits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    Numbers = NDArray[np.int64]
    Answer = tuple[Numbers, Numbers]
    Batch = Mapping[str, Any]

MAX_NAMED = 5
TYPES = "mm_token_type_ids"

COLLATE_PER_TOKEN = frozenset(
    {
        "token_type_ids",
        TYPES,
        f"moe_{TYPES}",
        "cross_attention_mask",
        "images_seq_mask",
        "image_embeds_position_mask",
    }
)
"""Outputs of processors with one value, or one row of values, for each token; 0 at text and padding."""

TYPES_OF_TEXT = {"Molmo2Processor"}
"""Processors of models that need the types of all tokens in training, also for batches without media."""


@dataclass(frozen=True)
class Collator:
    """Collates examples, or packed rows of examples, into batches.

    Flattened, one after the other and without padding, for models whose attention separates documents:

    ```
    [[5, 6, 7], [8, 9]]  ->  input_ids       [[5, 6, 7, 8, 9]]
                             labels          [[-100, 6, 7, -100, 9]]   no token predicts a document's first token
                             position_ids    [[0, 1, 2, 0, 1]]
                             cu_seq_lens_q   [0, 3, 5]                 and cu_seq_lens_k, the same tensor
                             max_length_q    3                         and max_length_k
    ```

    Packed rows are padded to a multiple of `fill` tokens. The padding belongs to no document.

    Padded on the right to a multiple of 8 tokens, for all other models:

    ```
    [[5, 6, 7], [8, 9]]  ->  input_ids       [[5, 6, 7, P, P, P, P, P], [8, 9, P, P, P, P, P, P]]
                             attention_mask  [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
                             labels          [[5, 6, 7, -100, …], [8, 9, -100, …]]
    ```

    Attributes:
        tokenizer: its padding token is used, else its end of sequence, else 0; attention never sees it.
        processor: processor of a multimodal model; it makes the batches that have media.
        fill: flattened rows are padded to a multiple of this number of tokens, so that few lengths occur: a CPU keeps
            compiled products for each length in memory.
        multiple: padded batches have a multiple of this number of columns.
    """

    tokenizer: PreTrainedTokenizerBase
    processor: ProcessorMixin | None = None
    flatten: bool = False
    fill: int = 1
    multiple: int = 8
    limits: MediaLimits = DEFAULT_LIMITS

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate a batch.

        Args:
            features: examples with `input_ids` and `labels` (`[seq]` each) and `index`, or packed rows, each with its
                `examples`.

        Returns:
            Flattened: `input_ids`, `labels`, `position_ids` (`[1, tokens]`, int64), `cu_seq_lens_q` and `cu_seq_lens_k`
            (`[documents + 1]`, int32), `max_length_q` and `max_length_k` (int). Padded: `input_ids`, `attention_mask`,
            `labels` (`[batch, seq]`, int64), labels -100 at padding. If the examples have a `number`, both have
            `numbers` (`[documents]`, int64). A batch with media is always padded, and also has the tensors of the
            processor, such as `pixel_values`.

        Raises:
            DataError: no token of the batch contributes to the loss, the processor does not accept its media, a media
                file has changed since the preparation, or the package that decodes videos or audio is missing.
        """
        examples = [example for feature in features for example in feature.get("examples", (feature,))]
        ids = [np.asarray(example["input_ids"], dtype=np.int64) for example in examples]
        labels = [np.asarray(example["labels"], dtype=np.int64) for example in examples]
        if not any((row[1:] != IGNORED).any() for row in labels):
            raise _nothing_to_learn(examples)
        batch = self._batch(examples, ids, labels, packed=any("examples" in feature for feature in features))
        return batch | _numbers(examples)

    def _batch(
        self,
        examples: list[Mapping[str, Any]],
        ids: list[NDArray[np.int64]],
        labels: list[NDArray[np.int64]],
        *,
        packed: bool,
    ) -> dict[str, Any]:
        if any(example.get("seen") for example in examples):
            return self._seen(examples, ids, labels)
        if not self.flatten:
            batch = self._padded(ids, labels)
            return batch | self._types_of_text(batch["labels"]) | self._token_types(batch["labels"])
        batch = flatten_documents(ids, labels)
        return self._filled(batch) if packed and self.fill > 1 else batch

    def _filled(self, batch: dict[str, Any]) -> dict[str, Any]:
        import torch.nn.functional as F  # noqa: N812 - torch's own short name

        values = {"input_ids": self._padding(), "labels": IGNORED, "position_ids": 0}
        room = (0, -batch["input_ids"].shape[1] % self.fill)
        return batch | {key: F.pad(batch[key], room, value=value) for key, value in values.items()}

    def _padded(self, ids: list[NDArray[np.int64]], labels: list[NDArray[np.int64]]) -> dict[str, Any]:
        import torch

        length = -(-max(map(len, ids)) // self.multiple) * self.multiple
        batch = {
            "input_ids": torch.full((len(ids), length), self._padding()),
            "attention_mask": torch.zeros((len(ids), length), dtype=torch.int64),
            "labels": torch.full((len(ids), length), IGNORED),
        }
        for row, (tokens, targets) in enumerate(zip(ids, labels, strict=True)):
            batch["input_ids"][row, : len(tokens)] = torch.from_numpy(tokens)
            batch["attention_mask"][row, : len(tokens)] = 1
            batch["labels"][row, : len(tokens)] = torch.from_numpy(targets)
        return batch

    def _seen(
        self,
        examples: list[Mapping[str, Any]],
        ids: list[NDArray[np.int64]],
        labels: list[NDArray[np.int64]],
    ) -> dict[str, Any]:
        """Padded batch with the tensors that the processor makes of its media.

        Examples with media must give the prepared tokens again; those without media keep the prepared ones.
        """
        import torch

        assert self.processor is not None  # noqa: S101 - for the type checker
        rows = [row for row, example in enumerate(examples) if example.get("seen")]
        stored = [stored_media(examples[row]["seen"]) for row in rows]
        texts, media = [text for text, _ in stored], [found for _, found in stored]
        # Of the text alone: audio keeps the padding of its own processor, whose length some models need.
        options = {"text_kwargs": {"padding": True, "padding_side": "right"}, "return_tensors": "pt"}
        try:
            made = process(self.processor, texts, media, self.limits, **options)
        except BadExample as error:
            names = ", ".join(str(examples[row].get("index", "?")) for row in rows[:MAX_NAMED])
            raise DataError(
                f"The batch of the examples {names} cannot be collated: {error}. Fix these records."
            ) from None
        if TYPES not in made and TYPES in self.processor.model_input_names:  # which some processors leave out
            made[TYPES] = torch.tensor(self.processor.create_mm_token_type_ids(made["input_ids"].tolist()))
        tokens, mask = made.pop("input_ids"), made.pop("attention_mask")
        for row, own, given in zip(rows, tokens, mask.bool(), strict=True):
            if own[given].tolist() != ids[row].tolist():
                raise DataError(
                    f"Example {examples[row].get('index', '?')} has other tokens in a batch than when it was prepared. "
                    "Expected its media and the model's processor to be the same. Set overwrite_cache: true to prepare "
                    "the data again."
                )
        batch = self._padded(ids, labels)
        for name in COLLATE_PER_TOKEN & made.keys():
            value = made[name]
            spread = value.new_zeros((*batch["input_ids"].shape, *value.shape[2:]))
            spread[torch.tensor(rows), : value.shape[1]] = value
            made[name] = spread
        return batch | made | self._token_types(batch["labels"])

    def _token_types(self, labels: Tensor) -> dict[str, Tensor]:
        """Token types of PaliGemma: 0 before the first trained token (bidirectional attention), then 1 (causal)."""
        if type(self.processor).__name__ not in PREFIX_ATTENTION:
            return {}
        return {"token_type_ids": (labels != IGNORED).cumsum(1).clamp(max=1)}

    def _types_of_text(self, labels: Tensor) -> dict[str, Tensor]:
        return {TYPES: labels.new_zeros(labels.shape)} if type(self.processor).__name__ in TYPES_OF_TEXT else {}

    def _padding(self) -> int:
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def _numbers(examples: list[Mapping[str, object]]) -> dict[str, object]:
    import torch

    numbers = [example["number"] for example in examples if example.get("number") is not None]
    return {"numbers": torch.tensor(numbers)} if len(numbers) == len(examples) else {}


def _nothing_to_learn(examples: list[Mapping[str, object]]) -> DataError:
    names = ", ".join(str(example.get("index", "?")) for example in examples[:MAX_NAMED])
    more = f" and {len(examples) - MAX_NAMED:,} more" if len(examples) > MAX_NAMED else ""
    return DataError(
        f"A batch has no tokens in the loss (examples {names}{more}). Raise cutoff_len, or check these examples."
    )


def flatten_documents(ids: Sequence[NDArray[np.int64]], labels: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """Concatenate documents to one row without padding.

    The first label of each document is ignored, since the token before it belongs to another document.

    Args:
        ids: token ids of each document, `[seq]` each, int64; at least one document, none of them empty.
        labels: labels of each document, `[seq]` each, int64.

    Returns:
        `input_ids`, `labels`, `position_ids` (`[1, tokens]`, int64; positions begin at 0 in each document),
        `cu_seq_lens_q` and `cu_seq_lens_k` (`[documents + 1]`, int32), `max_length_q` and `max_length_k` (int).
    """
    import torch

    lengths = np.array([len(row) for row in ids])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    targets = np.concatenate(labels)
    targets[starts] = IGNORED
    positions = np.arange(ends[-1]) - np.repeat(starts, lengths)
    borders = torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32))
    longest = int(lengths.max())
    return {
        "input_ids": torch.from_numpy(np.concatenate(ids))[None],
        "labels": torch.from_numpy(targets)[None],
        "position_ids": torch.from_numpy(positions)[None],
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": longest,
        "max_length_k": longest,
    }


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


PAD_MULTIPLE = 8  # as the collator pads

PER_GROUP = ("numbers", "reference", "good")
"""Columns with one row for each group of answers to the same question."""

BATCH_SPLIT_PER_TOKEN = ("old_log_probs", "old_values", "advantages", "returns")
"""Columns with one value for each token of the answers, see `llf_core.stages.ppo.rollout`."""
ANSWER_COLUMNS = ("predictors", "targets", "answers", "ends", "forks", "groups", *PER_GROUP, *BATCH_SPLIT_PER_TOKEN)

TEXT_COLUMNS = frozenset(
    ("input_ids", "labels", "attention_mask", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q",
     "max_length_k", *ANSWER_COLUMNS)
)  # fmt: skip
"""Columns of a text batch. Image tensors differ in layout between models, so batches with media are not split."""


def has_media(batch: Batch) -> bool:
    """Whether a batch has columns beyond those of text. It cannot be split, since their layout depends on the model."""
    return not batch.keys() <= TEXT_COLUMNS


def document_count(batch: Batch) -> int:
    """Number of documents of a batch; for a batch of answers, number of groups with the same prompt."""
    if "groups" in batch:
        groups: int = batch["groups"]
        return groups
    if "cu_seq_lens_q" in batch:
        return len(batch["cu_seq_lens_q"]) - 1
    return len(batch["input_ids"])


def token_count(batch: Batch) -> Tensor:
    """Number of tokens of a batch without padding, an int64 scalar on its device."""
    if "cu_seq_lens_q" in batch:
        end: Tensor = batch["cu_seq_lens_q"][-1]
        return end.long()
    total: Tensor = batch["attention_mask"].sum()
    return total


def trained_token_count(batch: Batch) -> Tensor:
    """Number of labels of a batch that contribute to the loss, an int64 scalar on its device.

    These are all labels but -100, without the first label of a row. For a batch of answers, they are its `targets`.
    """
    targets: Tensor | None = batch.get("targets")
    if targets is not None:
        return targets.new_tensor(len(targets))
    learned: Tensor = (batch["labels"][..., 1:] != IGNORED).sum()
    return learned


def split_batch(batch: Batch, parts: int) -> list[dict[str, Any]]:
    """Split a batch between documents, or groups of answers; the sum of a loss over all tokens stays the same.

    ```
    flattened [1, 9], cu_seq_lens_q [0, 4, 6, 9], in 2  ->  [1, 4] [0, 4]   and   [1, 5] [0, 2, 5]
    padded [3, 16], lengths 9, 3, 5, in 2               ->  [2, 16]         and   [1, 8]
    ```

    Args:
        batch: flattened (`[1, tokens]`), or padded on the right (`[batch, seq]`); see `llf_core.data.Collator`.

    Returns:
        Batches of the same kind; columns of tokens are views. Flattened batches are balanced by tokens: the largest
        part is as small as possible. Padded batches have the same number of rows or groups (the first ones one more, if
        it does not divide evenly), and are as wide as their longest row, rounded up to a multiple of 8.
    """
    parts = min(parts, document_count(batch))
    if parts <= 1 or has_media(batch):
        return [dict(batch)]
    each = 1
    if "groups" in batch:  # a group is one document, or one document for each of its answers
        each = (len(batch.get("cu_seq_lens_q", batch["input_ids"])) - ("cu_seq_lens_q" in batch)) // batch["groups"]
    if "cu_seq_lens_q" in batch:
        ends = batch["cu_seq_lens_q"][::each].tolist()
        cuts = balanced_cuts([end - start for start, end in pairwise(ends)], parts)
        pieces = [slice(each * first, each * last) for first, last in pairwise(cuts)]
        made = [_documents(batch, piece) for piece in pieces]
        starts = [ends[cut] for cut in cuts[:-1]]
    else:
        rows = len(batch["input_ids"]) // each
        cuts = [0, *accumulate(rows // parts + (part < rows % parts) for part in range(parts))]
        made = [_rows(batch, slice(each * first, each * last)) for first, last in pairwise(cuts)]
        starts = [each * cut * batch["input_ids"].shape[1] for cut in cuts[:-1]]
    if "groups" not in batch:
        return made
    return [
        part | _answers(batch, slice(first, last), start, part["input_ids"].shape[1])
        for part, (first, last), start in zip(made, pairwise(cuts), starts, strict=True)
    ]


def balanced_cuts(lengths: Sequence[int], parts: int) -> list[int]:
    """Partition a sequence into contiguous parts so that the largest sum is as small as possible, by binary search.

    The linear partition problem: Skiena, The Algorithm Design Manual, 2nd edition, section 8.5.

    Args:
        lengths: positive integers.
        parts: number of parts, from 1 to `len(lengths)`; none of them is empty.

    Returns:
        `parts + 1` increasing positions, from 0 to `len(lengths)`.
    """
    low, high = max(lengths), sum(lengths)
    while low < high:
        middle = (low + high) // 2
        if _runs_needed(lengths, middle) <= parts:
            high = middle
        else:
            low = middle + 1
    cuts, filled = [0], 0
    for place, length in enumerate(lengths):
        runs_left = parts - len(cuts)
        if place > cuts[-1] and runs_left and (filled + length > low or len(lengths) - place == runs_left):
            cuts.append(place)
            filled = 0
        filled += length
    return [*cuts, len(lengths)]


def _runs_needed(lengths: Sequence[int], most: int) -> int:
    runs, filled = 1, 0
    for length in lengths:
        if filled + length > most:
            runs, filled = runs + 1, 0
        filled += length
    return runs


def _documents(batch: Batch, documents: slice) -> dict[str, Any]:
    ends = batch["cu_seq_lens_q"][documents.start : documents.stop + 1].tolist()
    tokens = slice(ends[0], ends[-1])
    shape = batch["input_ids"].shape
    cu: Tensor = batch["cu_seq_lens_q"].new_tensor([end - ends[0] for end in ends])
    longest = max(end - start for start, end in pairwise(ends))
    own = {"cu_seq_lens_q": cu, "cu_seq_lens_k": cu, "max_length_q": longest, "max_length_k": longest}
    if "numbers" in batch and "groups" not in batch:
        own["numbers"] = batch["numbers"][documents]
    return {
        key: own[key] if key in own else value[:, tokens] if _shape(value)[:2] == shape else value
        for key, value in batch.items()
    }


def _rows(batch: Batch, rows: slice) -> dict[str, Any]:
    shape = batch["input_ids"].shape
    longest = int(batch["attention_mask"][rows].sum(-1).max())
    columns = slice(-(-longest // PAD_MULTIPLE) * PAD_MULTIPLE)
    return {
        key: value[rows, columns]
        if _shape(value)[:2] == shape
        else value[rows]
        if _shape(value)[:1] == shape[:1] and "groups" not in batch
        else value
        for key, value in batch.items()
    }


def _answers(batch: Batch, groups: slice, start: int, width: int) -> dict[str, Any]:
    """Columns of some groups besides the model's inputs.

    Args:
        start: position of their first token in the batch, counted row by row.
    """
    each = len(batch["ends"]) // batch["groups"]
    first, last = groups.start * each, groups.stop * each
    own = (batch["answers"] >= first) & (batch["answers"] < last)
    padded, whole = "cu_seq_lens_q" not in batch, batch["input_ids"].shape[1]

    def moved(places: Tensor) -> Tensor:
        places = places - start
        return places // whole * width + places % whole if padded else places

    found = {
        "groups": groups.stop - groups.start,
        "predictors": moved(batch["predictors"][own]),
        "targets": batch["targets"][own],
        "answers": batch["answers"][own] - first,
        "ends": moved(batch["ends"][first:last]),
        **({"forks": batch["forks"][groups] - start} if "forks" in batch else {}),
    }
    found |= {name: batch[name][own] for name in BATCH_SPLIT_PER_TOKEN if name in batch}
    return found | {name: batch[name][groups] for name in PER_GROUP if name in batch}


def _shape(value: object) -> tuple[int, ...]:
    shape: tuple[int, ...] = getattr(value, "shape", ())
    return shape
