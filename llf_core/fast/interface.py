"""The attention that transformers calls by the name `llf`, for flattened batches on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name

from llf_core.fast.attention import Layout, bounds_of, document_attention

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "llf"


def register() -> None:
    """Makes `llf` known to transformers, as attention and as mask.

    Without a mask function of the same name transformers would build no mask at all. Ours is that of `sdpa`: a batch
    that brings no `cu_seq_lens_q` gets the mask that it needs, flattened or not, and documents never see each other.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    record: dict[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer.

    Args:
        module: the layer.
        query: `[batch, heads, seq, dim]`.
        key: `[batch, key_heads, keys, dim]`.
        value: `[batch, key_heads, keys, value_dim]`.
        attention_mask: of `sdpa`; the placeholder of a flattened batch is not looked at.
        dropout: share of the probabilities that is dropped.
        scaling: of the scores; unset, `1 / √dim`.
        sliding_window: tokens that a token sees, itself included.
        softcap: see `Layout`.
        cu_seq_lens_q: the documents of a flattened batch (batch 1).
        max_length_q: the longest of them.
        record: is told scale, window, soft cap and dropout, which each layer knows alone.
        **kwargs: what other attentions want.

    Returns:
        `[batch, seq, heads, value_dim]`, and None for the probabilities.
    """
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    layout = Layout(
        bounds_of(cu_seq_lens_q), scaling if scaling is not None else query.shape[-1] ** -0.5, sliding_window, softcap
    )
    if record is not None:
        record.update(scaling=layout.scale, sliding_window=sliding_window, softcap=softcap, dropout=dropout)
    if kwargs.get("s_aux") is not None:
        raise ValueError("Attention sinks are not known to the attention of flattened batches.")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if query.device.type == "cpu" and not dropout:
        return document_attention(q.contiguous(), k.contiguous(), v.contiguous(), layout)[None], None
    if query.device.type == "cuda" and not dropout and softcap is None and query.dtype != torch.float32:
        return _varlen(q, k, v, cu_seq_lens_q, max_length_q or int(cu_seq_lens_q.diff().max()), layout)[None], None
    return one_by_one(q, k, v, layout, dropout)[None], None


def _varlen(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, layout: Layout) -> Tensor:
    """FlashAttention's form for sequences of several lengths, as torch ships it."""
    from torch.nn.attention.varlen import varlen_attn

    result: Any = varlen_attn(
        q,
        k,
        v,
        bounds,
        bounds,
        longest,
        longest,
        scale=layout.scale,
        window_size=(-1 if layout.window is None else layout.window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    output: Tensor = result
    return output


def one_by_one(q: Tensor, k: Tensor, v: Tensor, layout: Layout, dropout: float = 0.0) -> Tensor:
    """The plain form: one document after the other, by torch's own attention; what the fast ones are tested against.

    Args:
        q: `[tokens, heads, dim]`.
        k: `[tokens, key_heads, dim]`.
        v: `[tokens, key_heads, value_dim]`.
        layout: documents, scale, window, soft cap.
        dropout: share of the probabilities that is dropped.

    Returns:
        `[tokens, heads, value_dim]`.
    """
    pieces = []
    repeats = q.shape[1] // k.shape[1]
    for start, end in zip(layout.bounds, layout.bounds[1:], strict=False):
        q_, k_, v_ = (x[None, start:end].transpose(1, 2) for x in (q, k, v))
        length = end - start
        windowed = layout.window is not None and length > layout.window
        if layout.softcap is None and not windowed:
            piece = F.scaled_dot_product_attention(
                q_, k_, v_, dropout_p=dropout, is_causal=True, scale=layout.scale, enable_gqa=repeats > 1
            )
        else:
            seen = torch.ones(length, length, dtype=torch.bool, device=q.device).tril_()
            if layout.window is not None:
                seen = seen.triu_(1 - layout.window)
            scores = q_ @ k_.repeat_interleave(repeats, 1).transpose(2, 3) * layout.scale
            if layout.softcap is not None:
                scores = torch.tanh(scores / layout.softcap) * layout.softcap
            wide = torch.promote_types(q.dtype, torch.float32)
            probabilities = torch.softmax(scores.masked_fill(~seen, float("-inf")), -1, dtype=wide).to(q.dtype)
            piece = F.dropout(probabilities, dropout) @ v_.repeat_interleave(repeats, 1)
        pieces.append(piece[0].transpose(0, 1))
    return torch.cat(pieces)
