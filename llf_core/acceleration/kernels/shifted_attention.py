from __future__ import annotations

import functools
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from llf_core.acceleration.kernels.document_layout import Layout


def shifted_attention(
    attention: Callable[[slice, Layout, Tensor, Tensor, Tensor], Tensor],
    layout: Layout,
    q: Tensor,
    k: Tensor,
    v: Tensor,
) -> Tensor:
    """Shifted sparse attention (LongLoRA, arXiv 2309.12307, section 3.2) on top of any attention within documents.

    The first half of the heads attends within groups of `layout.group` tokens of a document, the second half within
    groups that begin half a group later, so that neighboring groups exchange information. Of an odd number of heads the
    second half has one more. LongLoRA wraps the groups of the second half around the end of a document; here its first
    and last group are shorter, so that no token attends to later ones.

    Args:
        attention: computes the attention of some heads: their slice, a layout without groups, and the heads' tensors.
        q: queries `[tokens, heads, dim]`.
        k: keys `[tokens, key_heads, dim]`.
        v: values `[tokens, key_heads, value_dim]`.

    Returns:
        `[tokens, heads, value_dim]`.
    """
    assert layout.group is not None  # noqa: S101 - for the type checker
    heads = q.shape[1]
    if k.shape[1] % 2:  # no half of the key heads serves half of the heads
        k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
    parts = []
    for shift, first, last in ((0, 0, heads // 2), (layout.group // 2, heads // 2, heads)):
        if first == last:  # one head has no first half
            continue
        plain = replace(layout, bounds=_group_bounds(layout.bounds, layout.group, shift), group=None)
        keys = slice(first * k.shape[1] // heads, last * k.shape[1] // heads)
        own = (x.contiguous() for x in (q[:, first:last], k[:, keys], v[:, keys]))
        parts.append(attention(slice(first, last), plain, *own))
    return torch.cat(parts, 1)


@functools.lru_cache(maxsize=8)
def _group_bounds(bounds: tuple[int, ...], group: int, shift: int) -> tuple[int, ...]:
    """Bounds of the groups of each document; the first group has `shift` tokens, unless 0."""
    ends = [0]
    for start, end in pairwise(bounds):
        ends += [*range(start + (shift or group), end, group), end]
    return tuple(ends)
