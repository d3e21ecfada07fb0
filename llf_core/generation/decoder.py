"""Computes next-token logits for a batch, with a key-value cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llf_core.generation.decoder_block import block_forward
from llf_core.generation.kv_cache import growing_cache, keep_rows, truncate_cache
from llf_core.generation.model_forward import ModelForward
from llf_core.generation.supported_models import causal_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from llf_core.generation.decoder_block import BlockForward


class Decoder:
    """Reads prompts into a cache, then one token per row and step.

    Prompts go through the model's own forward. Single tokens go through a faster forward if the model is supported and
    the faster one reproduces the logits of the first prompt's last token; `plain` says why not.

    Args:
        model: causal language model that `unsupported` accepts, in evaluation mode.

    Attributes:
        plain: why single tokens go through the model's own forward; None if they do not.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._layers = causal_model(model).config.get_text_config(decoder=True).num_hidden_layers
        self._device = model.get_input_embeddings().weight.device
        self._forward = ModelForward(model)
        found = block_forward(model)
        self._fast: BlockForward | None = None if isinstance(found, str) else found
        self.plain = found if isinstance(found, str) else None
        self._checked = False
        self._cache = growing_cache(self._layers, 0)
        self._positions = torch.zeros(0, dtype=torch.long)
        self._mask: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of positions in the cache, including padding: what the next turn of a conversation can reuse."""
        return int(self._cache.layers[0].get_seq_length())

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
        return self._check(tokens, self._forward(tokens, positions, self._long(self._mask), self._cache))

    def continue_row(self, tokens: Sequence[int], keep: int, room: int) -> Tensor:
        """Continue a single row: truncate the cache to what a changed prompt has in common with it, and read the rest.

        Args:
            tokens: token ids to read, at least one.
            keep: number of cached positions to keep.
            room: number of tokens that will follow.

        Returns:
            Logits after the last token, `[1, vocabulary]`.

        Raises:
            RuntimeError: out of memory.
        """
        if keep == 0:
            return self.read([tokens], room)
        truncate_cache(self._cache, keep)
        new = torch.tensor([list(tokens)], device=self._device)
        positions = torch.arange(keep, keep + len(tokens), device=self._device)[None]
        self._positions = positions[:, -1] + 1
        return self._forward(new, positions, None, self._cache)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read one token per row into the cache.

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
        if self._fast is not None:
            logits = self._fast(read, self._positions, self._mask, self._cache)
        else:
            logits = self._forward(read[:, None], self._positions[:, None], self._long(self._mask), self._cache)
        self._positions = self._positions + 1
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all rows of the batch except these, once the others are finished.

        Args:
            rows: indices of the rows to keep.
        """
        chosen = torch.tensor(rows, device=self._device)
        keep_rows(self._cache, chosen)
        self._positions = self._positions[chosen]
        if self._mask is not None:
            self._mask = self._mask[chosen]

    def _check(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Read the last token again with the fast forward, and discard that if its logits differ."""
        if self._fast is None or self._checked:
            return logits
        self._checked = True
        length = self.length
        truncate_cache(self._cache, length - 1)
        found = self._fast(tokens[:, -1], self._positions - 1, self._mask, self._cache)
        if self._fast.agrees(found, logits):
            return logits
        self._fast, self.plain = None, "The fast forward gave other logits than the model's own."
        truncate_cache(self._cache, length - 1)
        mask = self._long(self._mask)
        return self._forward(tokens[:, -1:], self._positions[:, None] - 1, mask, self._cache)

    @staticmethod
    def _long(mask: Tensor | None) -> Tensor | None:
        return None if mask is None else mask.long()
