"""Text embeddings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from llf_core.chat.request import RequestError
from llf_core.models.mixed_dtypes import autocast_mixed_dtypes

if TYPE_CHECKING:
    from collections.abc import Sequence


def embedding(model: Any, prompt: Sequence[int], device: torch.device) -> list[float]:
    """Embedding `[hidden]` of a text of at least one token: the mean of the last hidden states, scaled to length 1.

    Source: mean pooling as in Sentence-BERT (arXiv 1908.10084, section 3).

    Raises:
        RequestError: the model gives no finite hidden states, or its adapter is a learned prompt.
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise RequestError("The adapter is a learned prompt, so it gives no embeddings. Expected its base model.")
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    if causal.base_model is causal:
        raise RequestError(f"{type(causal).__name__} gives no hidden states, so it gives no embeddings.")
    with autocast_mixed_dtypes(model):
        hidden = causal.base_model(input_ids=torch.tensor([list(prompt)], device=device), use_cache=False)[0]
    found: list[float] = torch.nn.functional.normalize(hidden[0].float().mean(0), dim=0).tolist()
    if not all(map(math.isfinite, found)):
        raise RequestError("The hidden states of the text are not finite, so they give no embedding.")
    return found
