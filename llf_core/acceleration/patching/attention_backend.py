"""Attention implementation `llf` for transformers: flattened batches on any device."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name

from llf_core.acceleration.kernels.attention import (
    Layout,
    attend_branches,
    bounds_of,
    document_attention,
    forks_of,
    shifted_attention,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "llf"
PROBE = "llf_probe"
GROUP = "llf_group"
"""Attribute of a layer with shifted sparse attention, see `group_of`."""
FLASH_DIM = 256  # the widest head that FlashAttention supports
FLASH_CAPABILITY = (8, 0)  # the lowest compute capability that it supports
# Arguments that transformers passes to every attention; any other changes the result in a way not known here.
KNOWN_ARGUMENTS = frozenset(
    {"cu_seq_lens_k", "max_length_k", "position_ids", "use_cache", "output_attentions", "cache_position", "is_causal"}
)


@dataclass(frozen=True)
class AttentionCall:
    """Arguments of a call of attention, which `EquivalenceCheck` records.

    Attributes:
        flattened: whether it received the documents' lengths.
        masked: window of its mask; "unknown" if the mask is not from `marked_mask`. None for no window or no mask.
        unusual: names of arguments that `llf` does not support.
    """

    layer: nn.Module
    scale: float
    window: int | None
    softcap: float | None
    flattened: bool
    masked: int | str | None
    unusual: tuple[str, ...]


def register() -> None:
    """Register `llf` with transformers, as attention and as mask.

    Without a mask function of the same name transformers would create no mask at all. This one is that of `sdpa`: a
    batch without `cu_seq_lens_q` gets a complete mask, so that documents never attend to each other. `llf_probe` is the
    same with marked masks, see `marked_mask`.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    for name, mask in ((NAME, sdpa_mask), (PROBE, marked_mask)):
        AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, mask)


def marked_mask(
    *args: object,
    local_size: int | None = None,
    use_vmap: bool = False,
    allow_is_causal_skip: bool = True,
    **kwargs: object,
) -> Tensor:
    """Create the mask of `sdpa`, `[batch, 1, queries, keys]`, never skipped, with an attribute `window`.

    That is "unknown" where a model has masking rules of its own (`use_vmap`). A layer that does not receive its window
    as an argument shows it only here.
    """
    from transformers.masking_utils import sdpa_mask

    mask: Tensor = sdpa_mask(*args, local_size=local_size, use_vmap=use_vmap, allow_is_causal_skip=False, **kwargs)
    mask.window = "unknown" if use_vmap else local_size  # type: ignore[attr-defined]
    return mask


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
    forks: Tensor | None = None,
    s_aux: Tensor | None = None,
    record: list[AttentionCall] | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Compute the attention of one layer: within documents for a flattened batch, else by a mask.

    Args:
        query: `[batch, heads, seq, dim]`; a flattened batch is one row, `batch` = 1.
        key: `[batch, key_heads, keys, dim]`.
        value: `[batch, key_heads, keys, value_dim]`.
        scaling: factor of the attention scores; None for `1 / √dim`.
        sliding_window: number of tokens that a token attends to, including itself; None for all.
        cu_seq_lens_q: bounds of the documents of a flattened batch, `[documents + 1]`, int32; tokens after the last
            document get zeros.
        forks: start of the branches of each document, `[documents, 2]`, int32, see `Layout`.
        s_aux: attention sinks `[heads]`, see `document_attention`.
        record: list to which the arguments of each call are added; None in training.

    Returns:
        `[batch, seq, heads, value_dim]`, and None for the probabilities.
    """
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if record is not None:
        unusual = tuple(name for name, given in kwargs.items() if given is not None and name not in KNOWN_ARGUMENTS)
        if not (kwargs.get("is_causal", True) and getattr(module, "is_causal", True)):
            unusual += ("is_causal",)
        masked = None if attention_mask is None else getattr(attention_mask, "window", "unknown")
        flattened = cu_seq_lens_q is not None
        record.append(AttentionCall(module, scale, sliding_window, softcap, flattened, masked, unusual))
    if cu_seq_lens_q is None:
        return _masked(module, query, key, value, attention_mask, dropout, scale, softcap, s_aux, **kwargs), None
    layout = Layout(bounds_of(cu_seq_lens_q), scale, sliding_window, softcap, forks_of(forks), group_of(module))
    q, k, v = (x[0].transpose(0, 1).to(computing_dtype(x)) for x in (query, key, value))
    if query.device.type == "cpu" and not dropout:
        return document_attention(q.contiguous(), k.contiguous(), v.contiguous(), layout, sinks=s_aux)[None], None
    if layout.group is not None:
        output = shifted_attention(
            lambda heads, plain, q, k, v: _documents(q, k, v, plain, dropout, None if s_aux is None else s_aux[heads]),
            layout, q, k, v,
        )  # fmt: skip
    elif layout.forks:
        output = attend_branches(lambda plain, q, k, v: _documents(q, k, v, plain, dropout, s_aux), layout, q, k, v)
    else:
        output = _documents(q, k, v, layout, dropout, s_aux, cu_seq_lens_q, max_length_q)
    return output[None], None


def group_of(module: nn.Module) -> int | None:
    """Tokens of a group of shifted sparse attention in a layer; None for whole documents, as outside of training."""
    return getattr(module, GROUP, None) if module.training else None


def _documents(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    dropout: float,
    sinks: Tensor | None = None,
    bounds: Tensor | None = None,
    longest: int | None = None,
) -> Tensor:
    filler = len(q) - layout.bounds[-1]
    q, k, v = (x[: layout.bounds[-1]] for x in (q, k, v))
    if not dropout and sinks is None and _flash_knows(q, v, layout):
        if bounds is None:
            bounds = _bounds_on(q.device, layout.bounds, torch.is_inference_mode_enabled())
        longest = longest or max(end - start for start, end in pairwise(layout.bounds))
        output = _varlen(q, k, v, bounds, longest, layout)
    else:
        output = per_document_attention(q, k, v, layout, dropout, sinks)
    # F.pad copies also without padding, and both copies would be kept for the backward pass.
    return F.pad(output, (0, 0, 0, 0, 0, filler)) if filler else output


def computing_dtype(x: Tensor) -> torch.dtype:
    """Dtype of a product with `x`, of any shape: autocast's if enabled; float64 stays, as in torch."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _masked(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
    **kwargs: object,
) -> Tensor:
    """The function of torch, or the plain formula if there is a soft cap or sinks."""
    if softcap is None and sinks is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: Tensor = sdpa_attention_forward(
            module, query, key, value, mask, dropout=dropout, scaling=scale, **kwargs
        )[0]
        return output
    queries, keys = query.shape[2], key.shape[2]
    if mask is None:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
        mask = mask.tril() if queries > 1 else mask
    return _plain(query, key, value, mask, scale, softcap, dropout, sinks).transpose(1, 2).contiguous()


def _plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor,
    scale: float,
    softcap: float | None,
    dropout: float,
    sinks: Tensor | None,
) -> Tensor:
    """The plain formula on `[batch, heads, seq, dim]`; `seen` is true where a token attends to another."""
    repeats = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(repeats, 1).transpose(2, 3) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    if sinks is not None:
        column = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, column), -1)
    probabilities = torch.softmax(scores, -1, dtype=wide)[..., : key.shape[2]].to(query.dtype)
    return F.dropout(probabilities, dropout) @ value.repeat_interleave(repeats, 1)


@lru_cache(maxsize=4)
def _bounds_on(device: torch.device, bounds: tuple[int, ...], inference: bool) -> Tensor:
    """Cached for all layers, so that only the first one synchronizes with the device."""
    return torch.tensor(bounds, dtype=torch.int32, device=device)


@cache
def varlen_arguments() -> frozenset[str]:
    """Names of the arguments of torch's `varlen_attn`; empty before torch 2.10.

    2.10 has `is_causal` and no scale, 2.11 a scale and a window, and from 2.12 on there may be fewer key heads.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _flash_knows(q: Tensor, v: Tensor, layout: Layout) -> bool:
    dim = q.shape[-1]
    return (
        q.device.type == "cuda"
        and q.dtype in (torch.float16, torch.bfloat16)
        and layout.softcap is None
        and dim == v.shape[-1]
        and dim <= FLASH_DIM
        and dim % 8 == 0
        and ("window_size" if layout.window is not None else "cu_seq_q") in varlen_arguments()
        and torch.cuda.get_device_capability(q.device) >= FLASH_CAPABILITY
    )


def _varlen(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, layout: Layout) -> Tensor:
    """FlashAttention of documents with bounds `[documents + 1]`, int32: tensors are `[tokens, heads, dim]`."""
    from torch.nn.attention.varlen import varlen_attn

    known = varlen_arguments()
    grouped = q.shape[1] != k.shape[1]
    if grouped and "enable_gqa" not in known:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    if "scale" not in known:
        q = q * (layout.scale * q.shape[-1] ** 0.5)
    arguments: dict[str, Any] = {
        "scale": layout.scale,
        "window_size": (-1 if layout.window is None else layout.window - 1, 0),
        "is_causal": True,
        "enable_gqa": grouped,
    }
    options = {name: value for name, value in arguments.items() if name in known}
    q, k, v = (x.contiguous() for x in (q, k, v))
    result: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, **options)
    output: Tensor = result
    return output


def per_document_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, dropout: float = 0.0, sinks: Tensor | None = None
) -> Tensor:
    """Attention of one document after the other, for what FlashAttention does not support.

    It is torch's own function, or the plain formula with a soft cap, with sinks or where a window cuts a document.

    Args:
        q: `[tokens, heads, dim]`.
        k: `[tokens, key_heads, dim]`.
        v: `[tokens, key_heads, value_dim]`.
        layout: without forks and groups. The last document ends at `tokens`.
        sinks: `[heads]`, see `document_attention`.

    Returns:
        `[tokens, heads, value_dim]`.
    """
    pieces = []
    repeats = q.shape[1] // k.shape[1]
    for start, end in zip(layout.bounds, layout.bounds[1:], strict=False):
        q_, k_, v_ = (x[None, start:end].transpose(1, 2) for x in (q, k, v))
        length = end - start
        windowed = layout.window is not None and length > layout.window
        if layout.softcap is None and sinks is None and not windowed:
            piece = F.scaled_dot_product_attention(
                q_, k_, v_, dropout_p=dropout, is_causal=True, scale=layout.scale, enable_gqa=repeats > 1
            )
        else:
            seen = torch.ones(length, length, dtype=torch.bool, device=q.device).tril_()
            if layout.window is not None:
                seen = seen.triu_(1 - layout.window)
            piece = _plain(q_, k_, v_, seen, layout.scale, layout.softcap, dropout, sinks)
        pieces.append(piece[0].transpose(0, 1))
    return torch.cat(pieces)
