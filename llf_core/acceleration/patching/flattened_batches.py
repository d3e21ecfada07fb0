"""Flattened batches, and the models that do not support them according to their config.

Documents are kept apart in labels by `llf_core.data.collate`, in attention by
`llf_core.acceleration.kernels.attention`, in recurrent state by `per_document`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KNOWN_LAYERS = ("full_attention", "sliding_attention")
STATES = ("linear_attention", "conv", "hybrid")
"""Layers with a recurrent state; `per_document` resets it for each document."""
CHUNKED = "chunked_attention"
"""Layers that attend within chunks; `per_document` counts chunks from the start of each document."""
OTHER_LAYERS = ("moe",)
"""Layers that process each token independently."""


def unsupported_reason(causal: PreTrainedModel) -> str | None:
    """Reason by the config why batches of a model must not be flattened; None if a test on documents has to decide."""
    config = causal.config.get_text_config()
    name = type(causal).__name__
    layers = getattr(config, "layer_types", None) or ()
    if getattr(config, "is_encoder_decoder", False):
        return f"{name} is an encoder-decoder model."
    if getattr(config, "alibi", False) or getattr(config, "position_embedding_type", None) == "alibi":
        return f"{name} uses ALiBi, which counts distances across documents."
    if not (getattr(causal, "_supports_attention_backend", False) or has_recurrent_layers(causal)):
        return f"the attention of {name} cannot be replaced, so documents would see each other."
    other = sorted(set(layers) - {*KNOWN_LAYERS, *STATES, *OTHER_LAYERS, CHUNKED})
    if other:
        return f"{name} has layers of the type {other[0]}, which attention over flattened batches does not support."
    if any(parameter.is_meta for parameter in causal.parameters()):
        return f"parts of {name} are not in memory."
    return None


def has_recurrent_layers(causal: PreTrainedModel) -> bool:
    """Whether layers of a model have a recurrent state."""
    layers = getattr(causal.config.get_text_config(), "layer_types", None) or ()
    return getattr(causal, "_is_stateful", False) or any(one in STATES for one in layers)


def has_chunked_layers(causal: PreTrainedModel) -> bool:
    """Whether layers of a model attend within chunks."""
    return CHUNKED in (getattr(causal.config.get_text_config(), "layer_types", None) or ())


def decoder_of(causal: PreTrainedModel) -> PreTrainedModel:
    """The module that computes the hidden states: `get_decoder()`, or `model` if that is the model itself (Llama 4)."""
    decoder = causal.get_decoder()
    return causal.model if decoder is causal and hasattr(causal, "model") else decoder


class Flattened(TypedDict):
    """A flattened batch, see `llf_core.data.Collator`.

    Attributes:
        input_ids: `[1, tokens]`, int64.
        position_ids: `[1, tokens]`, int64; counted from 0 in each document.
        cu_seq_lens_q: `[documents + 1]`, int32.
        max_length_q: tokens of the longest document.
        attention_mask: `[1, 1, 0, 0]`, see `empty_mask`; only for the attention `llf`.
        forks: `[documents, 2]`, int32: where two branches of a document begin; only with branches.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seq_lens_q: Tensor
    cu_seq_lens_k: Tensor
    max_length_q: int
    max_length_k: int
    attention_mask: NotRequired[Tensor]
    forks: NotRequired[Tensor]


def flatten_probe(ids: list[Tensor]) -> Flattened:
    """Make a flattened batch that tests a model from the token ids `[seq]`, int64, of documents."""
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


def empty_mask(device: torch.device) -> Tensor:
    """Empty mask `[1, 1, 0, 0]` of a flattened batch: transformers passes four-dimensional masks through."""
    return torch.empty(1, 1, 0, 0, device=device)
