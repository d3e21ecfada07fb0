"""Computes next-token logits for a batch, with a key-value cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llf_core.generation.checked_forward import CHUNK, CheckedForward
from llf_core.generation.kv_cache import growing_cache
from llf_core.generation.kv_rows import RowsCache
from llf_core.generation.supported_models import causal_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel


class Decoder:
    """Reads prompts into a key-value cache, then one token per row and step, see `CheckedForward`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._layers = causal_model(model).config.get_text_config(decoder=True).num_hidden_layers
        self._device = model.get_input_embeddings().weight.device
        self._forward = CheckedForward(model)
        self._rows = RowsCache(self._layers, self._device)
        coarse = any(one.dtype.itemsize == 2 for one in model.parameters())  # noqa: PLR2004 - bytes
        self._each_alone = coarse and self._device.type == "cpu"

    @property
    def plain(self) -> str | None:
        """Why single tokens go through the model's own forward, which is slower; None if they do not."""
        return self._forward.plain

    def read(self, prompts: Sequence[Sequence[int]], room: int) -> Tensor:
        """Clear the cache and read one prompt per row; the logits after each, `[batch, vocabulary]`.

        Args:
            room: number of tokens that will follow, for which the cache reserves room.
        """
        self._rows = RowsCache(self._layers, self._device)
        self._rows.reserve(len(prompts), max(map(len, prompts)) + room)
        if self._each_alone:
            return torch.cat([self._read_alone(prompt) for prompt in prompts])
        longest = max(map(len, prompts))
        cache = growing_cache(self._layers, longest)
        tokens = torch.tensor([[0] * (longest - len(one)) + list(one) for one in prompts], device=self._device)
        lengths = torch.tensor([len(one) for one in prompts], device=self._device)
        columns = torch.arange(longest, device=self._device)
        mask = None if len(set(map(len, prompts))) == 1 else columns >= longest - lengths[:, None]
        positions = (columns - (longest - lengths[:, None])).clamp(min=0)
        logits = self._forward.read(tokens, positions, mask, cache)
        self._rows.take(cache, lengths.tolist())
        return logits

    def _read_alone(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt in chunks, so that its results in 16 bits depend on nothing else."""
        cache = growing_cache(self._layers, len(prompt))
        for start in range(0, len(prompt), CHUNK):
            tokens = torch.tensor([prompt[start : start + CHUNK]], device=self._device)
            positions = torch.arange(start, start + tokens.shape[1], device=self._device)[None]
            logits = self._forward.read(tokens, positions, None, cache)
        self._rows.join([(layer.keys, layer.values) for layer in cache.layers])
        return logits

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read the token id chosen for each row; returns the logits after them, `[batch, vocabulary]`."""
        return self._forward.step(torch.tensor(tokens, device=self._device), self._rows)

    def leave(self, row: int) -> None:
        """Remove a finished row; the last row takes its index."""
        self._rows.leave(row)
