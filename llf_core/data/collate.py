"""Collates examples of different lengths into a batch: flattened, or padded to a rectangle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.ignore_index import IGNORED
from llf_core.data.errors import BadExample, DataError
from llf_core.data.media import PREFIX_ATTENTION, process, stored_media
from llf_core.data.media_limits import DEFAULT_LIMITS, MediaLimits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase, ProcessorMixin


MAX_NAMED = 5
TYPES = "mm_token_type_ids"
PER_TOKEN = frozenset(
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
        for name in PER_TOKEN & made.keys():
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
