"""Causal attention within the documents of a flattened batch.

On a CPU each document takes a few batched matrix products, with a hand-written backward: the bfloat16 backward of
scaled_dot_product_attention takes up to four times as long there, most so for short documents. Long documents are
computed in blocks of queries, so that no time or memory is spent above the diagonal. Documents are zero-padded to a
multiple of some tokens: oneDNN compiles a product for every new shape and caches it, which takes half a gigabyte for
documents of all lengths. The padding follows a document, where the causal mask hides it.

Which tokens of a flattened batch attend to which.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch.autograd import Function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from llf_core.acceleration.kernels.context import Context

    class _Context(Context, Protocol):
        layout: Layout
        tokens: int


@functools.lru_cache(maxsize=4)
def _causal(queries: int, repeats: int, dtype: torch.dtype) -> Tensor:
    """Causal mask `[queries * repeats, queries]` of a block: 0 where a query attends to a key, else -inf."""
    whole = torch.full((queries, queries), float("-inf"), dtype=dtype).triu_(1)
    return whole[:, None].expand(-1, repeats, -1).reshape(queries * repeats, queries)


def _hide(scores: Tensor, queries: int, window: int | None, *, causal: bool) -> None:
    """Mask the scores `[groups, queries * repeats, keys]` of keys after a query, or beyond its window, with -inf.

    The last keys are the queries themselves.
    """
    repeats, keys = scores.shape[1] // queries, scores.shape[2]
    if causal:
        scores[..., keys - queries :] += _causal(LONGEST, repeats, scores.dtype)[: queries * repeats, :queries]
    if window is not None and keys > window:
        before = torch.full((queries, keys), float("-inf"), dtype=scores.dtype).tril_(keys - queries - window)
        scores.view(-1, queries, repeats, keys).add_(before[:, None])


def _probabilities(
    q: Tensor, k: Tensor, layout: Layout, repeats: int, hidden: Hidden | None, sinks: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Softmax of the scores `[groups, queries * repeats, keys]`, and the tanh of the soft cap if there is one.

    Sinks `[groups, repeats]` add one more key, the last.
    """
    rows, keys = q.shape[1], k.shape[1]
    queries, capped = rows // repeats, None
    masked = queries == keys and layout.softcap is None
    if masked:
        mask = _causal(LONGEST, repeats, q.dtype)[:rows, :keys].expand(q.shape[0], rows, keys)
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=layout.scale)
    else:
        scores = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=layout.scale)
    if layout.softcap is not None:
        capped = scores.div_(layout.softcap).tanh_()
        scores = capped * layout.softcap
    _hide(scores, queries, layout.window, causal=not masked)
    if hidden is not None:
        scores.view(-1, queries, repeats, keys)[:, hidden.query :, :, hidden.keys] = float("-inf")
    if sinks is not None:
        last = sinks.to(scores.dtype)[:, None].expand(-1, queries, -1).reshape(len(sinks), rows, 1)
        scores = torch.cat((scores, last), -1)
    return torch.softmax(scores, -1), capped


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary embedding to `[tokens, heads, dim]`; the first half of `sin` is negated already."""
    width = cos.shape[-1]
    if width == x.shape[-1]:
        return (x * cos).add_(x.roll(width // 2, -1).mul_(sin))
    turned = x.clone()
    turned[..., :width] = _rotated(x[..., :width], cos, sin)
    return turned


def _rotated_back(grad: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    width = cos.shape[-1]
    if width == grad.shape[-1]:
        return (grad * cos).add_((grad * sin).roll(width // 2, -1))
    turned = grad.clone()
    turned[..., :width] = _rotated_back(grad[..., :width], cos, sin)
    return turned


class _DocumentAttention(Function):
    @staticmethod
    def forward(
        ctx: _Context,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cos: Tensor | None,
        sin: Tensor | None,
        sinks: Tensor | None,
        layout: Layout,
    ) -> Tensor:
        tokens, groups, dim = q.shape[0], k.shape[1], q.shape[-1]
        repeats = q.shape[1] // groups
        if cos is not None and sin is not None:
            q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
        q, k, v = (
            layout.pad_documents(q, groups),
            layout.pad_documents(k, groups)[:, :, 0],
            layout.pad_documents(v, groups)[:, :, 0],
        )
        sinks = None if sinks is None else sinks.view(groups, repeats)
        output = q.new_empty(*q.shape[:3], v.shape[-1])
        kept: list[Tensor] = []
        for first, last, start, hidden in layout.blocks():
            queries = (last - first) * repeats
            probabilities, capped = _probabilities(
                q[:, first:last].view(groups, queries, dim), k[:, start:last], layout, repeats, hidden, sinks
            )
            torch.bmm(
                probabilities[..., : last - start],
                v[:, start:last],
                out=output[:, first:last].view(groups, queries, -1),
            )
            if layout.keeps(last - start):
                kept += [probabilities] if capped is None else [probabilities, capped]
        ctx.save_for_backward(q, k, v, cos, sin, sinks, *kept)
        ctx.layout, ctx.tokens = layout, tokens
        return layout.unpad_documents(output, tokens)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, cos, sin, sinks, *kept = ctx.saved_tensors
        layout: Layout = ctx.layout
        groups, _, repeats, dim = q.shape
        grad = layout.pad_documents(grads[0].to(q.dtype), groups)
        several = len(layout.bounds) - 1 < sum(1 for _ in layout.blocks())
        # The gradient of a key that several blocks attend to is a sum, accumulated in float32.
        wide = torch.float32 if several and q.dtype != torch.float64 else q.dtype
        grad_q = torch.empty_like(q)
        grad_k, grad_v = (torch.zeros_like(x, dtype=wide) if several else torch.empty_like(x) for x in (k, v))
        grad_sinks = None if sinks is None else torch.zeros_like(sinks, dtype=wide)
        at = 0
        for first, last, start, hidden in layout.blocks():
            queries = (last - first) * repeats
            q_, grad_ = q[:, first:last].view(groups, queries, dim), grad[:, first:last].view(groups, queries, -1)
            k_, v_ = k[:, start:last], v[:, start:last]
            if layout.keeps(last - start):
                probabilities, capped = kept[at], None if layout.softcap is None else kept[at + 1]
                at += 1 if layout.softcap is None else 2
            else:
                probabilities, capped = _probabilities(q_, k_, layout, repeats, hidden, sinks)
            inner = torch.bmm(grad_, v_.transpose(1, 2))
            if grad_sinks is not None:  # a sink has no value
                inner = F.pad(inner, (0, 1))
            scores = torch.ops.aten._softmax_backward_data(inner, probabilities, -1, q.dtype)
            if grad_sinks is not None:
                grad_sinks += scores[..., -1].view(groups, -1, repeats).sum(1, dtype=wide)
                scores, probabilities = (x[..., :-1] for x in (scores, probabilities))
            if capped is not None:
                scores.mul_(1 - capped.square())
            torch.baddbmm(
                q.new_empty(1),
                scores,
                k_,
                beta=0,
                alpha=layout.scale,
                out=grad_q[:, first:last].view(groups, queries, dim),
            )
            if several:
                grad_v[:, start:last] += torch.bmm(probabilities.transpose(1, 2), grad_)
                grad_k[:, start:last] += torch.bmm(scores.transpose(1, 2), q_)
            else:
                torch.bmm(probabilities.transpose(1, 2), grad_, out=grad_v[:, start:last])
                torch.bmm(scores.transpose(1, 2), q_, out=grad_k[:, start:last])
        grad_q = layout.unpad_documents(grad_q, ctx.tokens)
        grad_k = layout.unpad_documents(grad_k.mul_(layout.scale).to(k.dtype)[:, :, None], ctx.tokens)
        grad_v = layout.unpad_documents(grad_v.to(v.dtype)[:, :, None], ctx.tokens)
        if cos is not None:
            grad_q, grad_k = _rotated_back(grad_q, cos, sin), _rotated_back(grad_k, cos, sin)
        if grad_sinks is not None:
            grad_sinks = grad_sinks.to(sinks.dtype).flatten()
        return grad_q, grad_k, grad_v, None, None, grad_sinks, None


def document_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Compute causal attention within each document of a flattened batch: `softmax(scale · q kᵀ) v`.

    In bfloat16 the scores are rounded before the softmax, as in transformers' eager attention; the softmax is computed
    in float32. arXiv 1706.03762, equation 1; rotary embedding: arXiv 2104.09864, equation 34; soft cap: Gemma 2, arXiv
    2408.00118, section 2; sinks as in transformers' `GptOssAttention`.

    Args:
        q: queries `[tokens, heads, dim]`.
        k: keys `[tokens, key_heads, dim]`; `heads` is a multiple of `key_heads`.
        v: values `[tokens, key_heads, value_dim]`.
        cos: `[tokens, 1, rotary_dim]`, to rotate the first `rotary_dim` of `dim` of q and k here; None if they are
            rotated already.
        sin: `[tokens, 1, rotary_dim]` with its first half negated, see `signed_sin`.
        sinks: `[heads]`: a score per head that takes part in the softmax of every query and has no value.

    Returns:
        `[tokens, heads, value_dim]`.
    """
    if layout.group is not None:
        return shifted_attention(
            lambda heads, layout, q, k, v: document_attention(
                q, k, v, layout, cos, sin, None if sinks is None else sinks[heads]
            ),
            layout, q, k, v,
        )  # fmt: skip
    if layout.forks and layout.window is not None:
        return attend_branches(
            lambda layout, q, k, v, cos=None, sin=None: document_attention(q, k, v, layout, cos, sin, sinks),
            layout, q, k, v, *(() if cos is None or sin is None else (cos, sin)),
        )  # fmt: skip
    result: Tensor = _DocumentAttention.apply(q, k, v, cos, sin, sinks, layout)
    return result


def attend_branches(attention: Callable[..., Tensor], layout: Layout, *tensors: Tensor) -> Tensor:
    """Compute attention of documents with forks by a kernel without forks: each branch together with its prefix.

    Args:
        attention: called with a layout and the tensors.
        tensors: `[tokens, ...]` each, of all documents and padding.

    Returns:
        `[tokens, ...]`, zero after the last document.
    """
    device = tensors[0].device
    bounds, taken, kept = _unfolding(layout.bounds, layout.forks, device, torch.is_inference_mode_enabled())
    plain = replace(layout, bounds=bounds, forks=())
    result = attention(plain, *(tensor.index_select(0, taken) for tensor in tensors))
    result = result.index_select(0, kept)
    filler = len(tensors[0]) - layout.bounds[-1]
    return torch.cat((result, result.new_zeros(filler, *result.shape[1:]))) if filler else result


@functools.lru_cache(maxsize=4)
def _unfolding(
    bounds: tuple[int, ...],
    forks: tuple[tuple[int, int], ...],
    device: torch.device,
    inference: bool,  # tensors created in inference mode cannot be saved for a backward pass
) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """Bounds of the branches, indices of their tokens, and which of them belong to the result.

    Cached, so that only the first layer synchronizes with the device.
    """
    taken: list[int] = []
    kept: list[int] = []
    ends = [0]
    for (start, end), (fork, split) in zip(pairwise(bounds), forks, strict=True):
        kept += range(len(taken), len(taken) + split - start)
        taken += range(start, split)
        ends.append(len(taken))
        taken += range(start, fork)
        kept += range(len(taken), len(taken) + end - split)
        taken += range(split, end)
        ends.append(len(taken))
    return tuple(ends), torch.tensor(taken, device=device), torch.tensor(kept, device=device)


def signed_sin(sin: Tensor) -> Tensor:
    """Negate the first half of `sin` `[..., rotary_dim]`, so that `rotate_half(x) * sin` is `roll(x) * signed_sin`."""
    half = sin.shape[-1] // 2
    return torch.cat((-sin[..., :half], sin[..., half:]), -1)


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


BLOCK = 256  # queries at a time
LONGEST = BLOCK + BLOCK // 2  # a document up to this length is one block
KEPT = 512  # with more keys, probabilities are computed again in the backward pass
MULTIPLE = 16  # documents are padded to a multiple of it
CACHED_LIST = "_llf_numbers"  # attribute of a small tensor with its values as Python numbers


@dataclass(frozen=True)
class Layout:
    """Which tokens attend to which in a flattened batch, and how scores are computed.

    Attributes:
        bounds: 0, the end of each document, …; no document is empty. Tokens after the last one have the output 0.
        scale: factor of the attention scores.
        window: sliding window: a token attends to itself and to `window - 1` tokens before it. None: to all before it.
        softcap: scores become `softcap * tanh(score / softcap)`; None for no soft cap.
        forks: for each document, the start of the first and of the second of two branches. The second branch does not
            attend to the first. Only without a window, see `attend_branches`.
        group: tokens of a group of shifted sparse attention, see `shifted_attention`; None: whole documents.
    """

    bounds: tuple[int, ...]
    scale: float
    window: int | None = None
    softcap: float | None = None
    forks: tuple[tuple[int, int], ...] = ()
    group: int | None = None

    @functools.cached_property
    def padded_bounds(self) -> tuple[int, ...]:
        """`bounds` with documents padded to multiples of `MULTIPLE`: oneDNN compiles a product for every new shape."""
        rooms = (-(-(end - start) // MULTIPLE) * MULTIPLE for start, end in pairwise(self.bounds))
        return tuple(accumulate(rooms, initial=0))

    def pad_documents(self, x: Tensor, groups: int) -> Tensor:
        """Pad the documents with zeros and group the heads.

        `[tokens, heads, dim]` becomes `[groups, padded tokens, heads / groups, dim]`.
        """
        x = x.view(x.shape[0], groups, -1, x.shape[-1]).transpose(0, 1)
        result = x.new_empty(groups, self.padded_bounds[-1], *x.shape[2:])
        for (start, end), (first, last) in zip(pairwise(self.bounds), pairwise(self.padded_bounds), strict=True):
            result[:, first : first + end - start] = x[:, start:end]
            result[:, first + end - start : last] = 0
        return result

    def unpad_documents(self, x: Tensor, tokens: int) -> Tensor:
        """Invert `pad_documents`: `[groups, padded tokens, heads / groups, dim]` to `[tokens, heads, dim]`.

        Zero after the last document.
        """
        result = x.new_empty(tokens, x.shape[0], *x.shape[2:])
        for (start, end), first in zip(pairwise(self.bounds), self.padded_bounds, strict=False):
            result[start:end] = x[:, first : first + end - start].transpose(0, 1)
        result[self.bounds[-1] :] = 0
        return result.flatten(1, 2)

    def blocks(self) -> Iterator[tuple[int, int, int, Hidden | None]]:
        """Blocks of queries of the padded documents: first query, end of queries and keys, first key, extra mask."""
        for number, (start, end) in enumerate(pairwise(self.padded_bounds)):
            step = end - start if end - start <= LONGEST else BLOCK
            fork, split = self.forks[number] if self.forks else (0, 0)
            branch, second = fork - self.bounds[number], split - self.bounds[number]
            for first in range(start, end, step):
                last = min(first + step, end)
                hidden = None
                if self.forks and last > start + second:
                    hidden = Hidden(max(start + second - first, 0), slice(branch, second))
                yield first, last, start if self.window is None else max(start, first - self.window + 1), hidden

    def keeps(self, keys: int) -> bool:
        """Whether the probabilities of a block are stored for the backward pass, or computed again to save memory.

        The limit `KEPT` is chosen, not measured.
        """
        return keys <= KEPT


@dataclass(frozen=True)
class Hidden:
    """Additional mask of a block: queries from `query` on do not attend to a slice of keys."""

    query: int
    keys: slice


def forks_of(forks: Tensor | None) -> tuple[tuple[int, int], ...]:
    """The forks `[documents, 2]`, int32, of a batch as integers; empty for None."""
    return () if forks is None else tuple((fork, split) for fork, split in cached_list(forks))


def bounds_of(cu_seq_lens: Tensor | Sequence[int]) -> tuple[int, ...]:
    """The documents' bounds `[documents + 1]`, int32, as integers. Waits for a GPU once, see `cached_list`."""
    return tuple(cached_list(cu_seq_lens) if isinstance(cu_seq_lens, torch.Tensor) else cu_seq_lens)


def cached_list(tensor: Tensor) -> list[Any]:
    """`tensor.tolist()` of any shape with a dimension, cached on the tensor until it changes in place.

    Only the first layer of a model then synchronizes with the device. Nothing is cached for inference tensors and while
    torch compiles. Do not change the lists.
    """
    # A compiler does not trace attributes, and tensors created in inference mode have no counter of changes.
    if torch.compiler.is_compiling() or tensor.is_inference():
        return tensor.tolist()
    known: tuple[int, list[object]] | None = getattr(tensor, CACHED_LIST, None)
    if known is None or known[0] != tensor._version:
        known = (tensor._version, tensor.tolist())
        setattr(tensor, CACHED_LIST, known)
    return known[1]
