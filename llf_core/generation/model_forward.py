"""The model's own forward pass with a key-value cache."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

from llf_core.generation.supported_models import causal_model

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers.cache_utils import Cache


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
