"""The model's own forward, called through its public arguments with a cache that is kept."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from llf_core.generation.supported_models import causal_model

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers.cache_utils import Cache


class PlainForward:
    """Scores of the next token by the model's own forward.

    Args:
        model: a causal language model of transformers, perhaps wrapped by PEFT.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        taken = inspect.signature(type(causal_model(model)).forward).parameters
        self._cache = "cache" if "cache" in taken else "past_key_values"  # renamed within transformers 5
        self._positions = "position_ids" in taken
        self._last: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}

    def __call__(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """Reads new tokens into the cache.

        Args:
            tokens: `[batch, new]` of int64.
            positions: of these tokens, `[batch, new]`.
            mask: 1 where a token is, 0 where padding is, `[batch, past + new]`; None where nothing is padded.
            cache: filled by `past` tokens.

        Returns:
            Logits after the last token, `[batch, vocabulary]`.
        """
        inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask, self._cache: cache, "use_cache": True}
        if self._positions:
            inputs["position_ids"] = positions
        with torch.no_grad():
            logits: Tensor = self._model(**inputs, **self._last).logits
        return logits[:, -1]
