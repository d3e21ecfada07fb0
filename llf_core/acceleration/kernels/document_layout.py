"""Which tokens of a flattened batch attend to which."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

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
