"""Examples of different lengths to one rectangular batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.data.errors import DataError
from llf_core.data.mask import IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Collator:
    """Pads on the right to a multiple of 8 tokens.

    ```
    [[5, 6, 7], [8]]  ->  input_ids       [[5, 6, 7, P, P, P, P, P], [8, P, P, P, P, P, P, P]]
                          attention_mask  [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    ```

    Attributes:
        tokenizer: whose padding token is used, else its end of sequence, else 0; attention never sees it.
        multiple: what the padded length is a multiple of.
    """

    tokenizer: PreTrainedTokenizerBase
    multiple: int = 8

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Makes a batch.

        Args:
            features: `input_ids` and `labels` (`[seq]` each) and `index`.

        Returns:
            `input_ids`, `attention_mask`, `labels`: `[batch, seq]`, int64; labels are -100 where padded.

        Raises:
            DataError: no token of the batch is learned from; its examples are named.
        """
        import torch

        longest = max(len(feature["input_ids"]) for feature in features)
        length = -(-longest // self.multiple) * self.multiple
        ids = torch.full((len(features), length), self._padding(), dtype=torch.int64)
        labels = torch.full_like(ids, IGNORED)
        mask = torch.zeros_like(ids)
        for row, feature in enumerate(features):
            size = len(feature["input_ids"])
            ids[row, :size] = torch.as_tensor(feature["input_ids"], dtype=torch.int64)
            labels[row, :size] = torch.as_tensor(feature["labels"], dtype=torch.int64)
            mask[row, :size] = 1
        if not bool((labels[:, 1:] != IGNORED).any()):
            names = ", ".join(str(feature.get("index", "?")) for feature in features)
            raise DataError(
                f"A batch has no token to learn from (examples {names}). Raise cutoff_len, or look at these examples."
            )
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def _padding(self) -> int:
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0
