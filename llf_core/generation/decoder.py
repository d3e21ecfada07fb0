"""Computes next-token logits for a batch, with a key-value cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llf_core.generation.checked_forward import CheckedForward
from llf_core.generation.kv_cache import growing_cache, keep_rows
from llf_core.generation.supported_models import causal_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel


class Decoder:
    """Reads prompts into a cache, then one token per row and step.

    Prompts go through the model's own forward. Single tokens go through a faster forward if the model is supported and
    the faster one reproduces the logits of the first prompt's last token; `plain` says why not.

    Args:
        model: causal language model that `unsupported` accepts, in evaluation mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._layers = causal_model(model).config.get_text_config(decoder=True).num_hidden_layers
        self._device = model.get_input_embeddings().weight.device
        self._forward = CheckedForward(model)
        self._cache = growing_cache(self._layers, 0)
        self._positions = torch.zeros(0, dtype=torch.long)
        self._mask: Tensor | None = None

    @property
    def plain(self) -> str | None:
        """Why single tokens go through the model's own forward, which is slower; None if they do not."""
        return self._forward.plain

    def read(self, prompts: Sequence[Sequence[int]], room: int) -> Tensor:
        """Clear the cache and read one prompt per row, padded on the left, so that all rows continue at one position.

        Args:
            prompts: token ids, none empty.
            room: number of tokens that will follow, for which the cache has room from the start.

        Returns:
            Logits after each prompt, `[batch, vocabulary]`.

        Raises:
            RuntimeError: out of memory.
            ValueError: there is no prompt.
        """
        longest = max(map(len, prompts))
        self._cache = growing_cache(self._layers, longest + room)
        tokens = torch.tensor([[0] * (longest - len(one)) + list(one) for one in prompts], device=self._device)
        lengths = torch.tensor([len(one) for one in prompts], device=self._device)
        columns = torch.arange(longest, device=self._device)
        mask = columns >= longest - lengths[:, None]
        self._mask = None if len(set(map(len, prompts))) == 1 else mask
        positions = (columns - (longest - lengths[:, None])).clamp(min=0)
        self._positions = lengths
        return self._forward.read(tokens, positions, self._mask, self._cache)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read one token per row into the cache, the one that was chosen from the last logits.

        Args:
            tokens: one token id per row.

        Returns:
            Logits after these tokens, `[batch, vocabulary]`.

        Raises:
            RuntimeError: out of memory.
        """
        read = torch.tensor(tokens, device=self._device)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        logits = self._forward.step(read, self._positions, self._mask, self._cache)
        self._positions = self._positions + 1
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all rows of the batch except these, once the others are finished.

        Args:
            rows: indices of the rows to keep, at least one, in the order that the rows have afterwards.

        Raises:
            IndexError: a row is not in the batch.
        """
        chosen = torch.tensor(rows, device=self._device)
        keep_rows(self._cache, chosen)
        self._positions = self._positions[chosen]
        if self._mask is not None:
            self._mask = self._mask[chosen]
