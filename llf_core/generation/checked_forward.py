"""Forward passes of decoding: the model's own, and a faster one that is first compared with it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

from llf_core.generation.decoder_block import block_forward, causal_model
from llf_core.generation.kv_cache import RowsCache, growing_cache

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

    from llf_core.generation.decoder_block import BlockForward

MAX_PROMPT = 128
"""Largest number of tokens of a row that the faster forward reads at once. On a CPU it read 20 tokens in 0.7 of the
time, and 128 tokens in 0.9 of it (SmolLM2 135 M, bfloat16, one thread).
"""


CHUNK = 128
"""Number of tokens per chunk in which a CPU reads prompts in 16 bits, so that results depend on nothing else."""


class CheckedForward:
    """Reads prompts by the model's own forward, single tokens and short prompts by a faster one with the same logits.

    Args:
        model: causal language model that `unsupported` accepts, in evaluation mode. Create a new `CheckedForward` after
            weights or adapters have changed.

    Attributes:
        plain: why single tokens go through the model's own forward; None if they do not.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._forward = ModelForward(model)
        found = block_forward(model)
        self._fast: BlockForward | None = None if isinstance(found, str) else found
        self.plain = found if isinstance(found, str) else None
        self._checked = False
        self._reads_prompts: bool | None = None  # not known before the first short prompt

    def read(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """Read tokens into the cache; the logits after the last one, `[batch, vocabulary]`.

        Both forwards read the last token of the first prompt, and the first short prompt of one row without padding.
        The faster one is used where it gave the same logits up to rounding. The keys and values of a prompt are the
        same the first time and later.

        Args:
            tokens: token ids `[batch, new]`, int64; `positions` alike.
            mask: true at tokens, false at padding, `[batch, past + new]`; None without padding.
            cache: holds `past` tokens, in growing layers.
        """
        short = len(tokens) == 1 and mask is None and 1 < tokens.shape[1] <= MAX_PROMPT
        if short and self._fast is not None and self._reads_prompts:
            return self._fast.read(tokens[0], positions[0], cache)
        past = int(cache.layers[0].get_seq_length())
        logits = self._forward(tokens, positions, _long(mask), cache)
        if self._fast is None:
            return logits
        if not self._checked:
            self._checked = True
            rows = RowsCache(len(cache.layers), tokens.device)
            rows.take(_copy(cache, past + tokens.shape[1] - 1), positions[:, -1].tolist())
            found = self._fast(tokens[:, -1], rows)
            if not self._fast.agrees(found, logits):
                self._fast, self.plain = None, "The fast forward gave other logits than the model's own."
                return logits
        if short and self._reads_prompts is None:
            copy = _copy(cache, past)
            found = self._fast.read(tokens[0], positions[0], copy)
            self._reads_prompts = self._fast.agrees(found, logits)
            if self._reads_prompts:
                for layer, read in zip(cache.layers, copy.layers, strict=True):
                    layer.keys.copy_(read.keys)
                    layer.values.copy_(read.values)
                return found
        return logits

    def step(self, tokens: Tensor, cache: RowsCache) -> Tensor:
        """Read one token per row, ids `[rows]`, into the cache after `read`; the logits `[rows, vocabulary]`.

        A failed step can be repeated.
        """
        if self._fast is not None:
            logits = self._fast(tokens, cache)
        else:
            cache.begin()
            logits = self._forward(tokens[:, None], cache.columns[:, None], _long(cache.mask()), cache)
        cache.end()
        return logits


def _copy(cache: Cache, length: int) -> Cache:
    """A cache of the first positions of another one, with the same room."""
    copy = growing_cache(len(cache.layers), int(cache.layers[0].get_seq_length()))
    for layer, given in zip(copy.layers, cache.layers, strict=True):
        if length:
            layer.update(given.keys[:, :, :length], given.values[:, :, :length])
    return copy


def _long(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.long()


class ModelForward:
    """Next-token logits by a model's own forward, whatever its arguments are called in this transformers version."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        taken = inspect.signature(type(causal_model(model)).forward).parameters
        self._cache = "cache" if "cache" in taken else "past_key_values"  # renamed within transformers 5
        self._positions = "position_ids" in taken
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}

    def __call__(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """Read new tokens into the cache; the logits after the last one, `[batch, vocabulary]`.

        Args:
            tokens: token ids `[batch, new]`, int64; `positions` alike.
            mask: 1 at tokens, 0 at padding, `[batch, past + new]`; None without padding.
            cache: holds `past` tokens.
        """
        inputs = {"input_ids": tokens, "attention_mask": mask, self._cache: cache, "use_cache": True}
        if self._positions:
            inputs["position_ids"] = positions
        with torch.no_grad():
            logits: Tensor = self._model(**inputs, **self._last).logits
        return logits[:, -1]
