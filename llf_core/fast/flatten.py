"""Whether a model keeps the documents of a flattened batch apart: asked of its configuration, then of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llf_core.fast import interface

LENGTHS = (5, 7, 4)
# Relative distance (of norms) of hidden states. What leaks from another document moves them by several tenths.
CLOSE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}


def can_flatten(causal: Any) -> str | None:
    """Sets a model's attention to `llf` and tries it.

    Args:
        causal: a causal language model of transformers, in evaluation mode and without gradients.

    Returns:
        None where batches may be flattened, else the reason; then the model's attention is what it was.
    """
    refused = _refused(causal)
    if refused is not None:
        return refused
    before = causal.config._attn_implementation
    if before in ("sdpa", "eager"):
        interface.register()
        causal.set_attn_implementation(interface.NAME)
    reason = _leaks(causal)
    if reason is not None:
        causal.set_attn_implementation(before)
    return reason


def _refused(causal: Any) -> str | None:
    config = causal.config.get_text_config()
    name = type(causal).__name__
    if not getattr(causal, "_supports_attention_backend", False):
        return f"the attention of {name} cannot be exchanged, so it would see the other documents."
    if getattr(causal, "_is_stateful", False) or any(
        "attention" not in kind or "linear" in kind for kind in getattr(config, "layer_types", None) or ()
    ):
        return f"{name} has recurrent layers, whose state would run on into the next document."
    if getattr(config, "is_encoder_decoder", False):
        return f"{name} reads its input by an encoder."
    if any(parameter.is_meta for parameter in causal.parameters()):
        return f"parts of {name} are not in memory."
    return None


def flattened(ids: list[Tensor]) -> dict[str, Any]:
    """A flattened batch of documents `[seq]`, without labels; see `Collator`."""
    lengths = torch.tensor([0] + [len(one) for one in ids])
    bounds = lengths.cumsum(0).to(torch.int32).to(ids[0].device)
    longest = max(len(one) for one in ids)
    return {
        "input_ids": torch.cat(ids)[None],
        "position_ids": torch.cat([torch.arange(len(one), device=one.device) for one in ids])[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def placeholder(device: torch.device) -> Tensor:
    """The mask of a flattened batch: transformers hands four dimensions through untouched and builds none."""
    return torch.empty(1, 1, 0, 0, device=device)


def _leaks(causal: Any) -> str | None:
    """Compares documents side by side with each alone."""
    embeddings = causal.get_input_embeddings()
    device, size = embeddings.weight.device, embeddings.num_embeddings
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, size, (length,), generator=generator).to(device) for length in LENGTHS]
    decoder = causal.get_decoder()
    try:
        together = decoder(**flattened(ids), attention_mask=placeholder(device), use_cache=False).last_hidden_state[0]
        alone = torch.cat([decoder(input_ids=one[None], use_cache=False).last_hidden_state[0] for one in ids])
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(causal).__name__} cannot be given several documents ({error})."
    distance = float((together - alone).float().norm() / alone.float().norm())
    if not distance <= CLOSE.get(alone.dtype, 0.0):
        return f"documents side by side give {type(causal).__name__} other numbers than each alone (by {distance:.1%})."
    return None
