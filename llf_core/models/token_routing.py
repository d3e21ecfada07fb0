"""Which tokens of a batch pass a block, and how a block is called for these alone (arXiv 2404.02258)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor, nn

BATCH = ("cu_seq_lens_q", "attention_mask", "position_ids")
"""Arguments of a decoder that mark documents and padding."""
DENOMINATOR = 1_000_000
"""Bound of the fraction that a capacity is read as, so that 0.29 of 100 tokens are 29."""
FLAT_MASK = 4
"""Axes of a mask `[batch, heads, seq, seq]`."""


@dataclass(frozen=True)
class Documents:
    """The documents of a batch, and how many tokens of each may pass a routed block.

    Attributes:
        numbers: `[batch, seq]`, int64: the document of each token; the number of documents for padding.
        capacity: `[documents + 1]`, int64: tokens of each document that pass; 0 for padding.
        real: `[batch, seq]`, bool: false for padding.
    """

    numbers: Tensor
    capacity: Tensor
    real: Tensor


def real_tokens(shape: Sequence[int], batch: Mapping[str, Any], device: torch.device) -> Tensor:
    """Which tokens are no padding: `[batch, seq]`, bool; `[1, seq]` with `cu_seq_lens_q`.

    Args:
        batch: keyword arguments of the decoder: `cu_seq_lens_q` `[documents + 1]` or `attention_mask` `[batch, seq]`,
            if there is one.
    """
    import torch

    bounds, mask = batch.get("cu_seq_lens_q"), batch.get("attention_mask")
    if bounds is not None:
        inside: Tensor = torch.arange(shape[1], device=device) < bounds[-1].to(device)
        return inside[None]
    if mask is not None and mask.ndim == 2:  # noqa: PLR2004 - batch and seq
        real: Tensor = mask.to(device=device, dtype=torch.bool)
        return real
    return torch.ones(*shape, dtype=torch.bool, device=device)


def documents_of(shape: Sequence[int], batch: Mapping[str, Any], capacity: float, device: torch.device) -> Documents:
    """Find the documents of a batch from the arguments of its decoder.

    Documents of a flattened batch are those of `cu_seq_lens_q`. Otherwise each row is one, without the tokens that
    `attention_mask` excludes; without a mask, a row is divided where `position_ids` do not go on by 1, as transformers
    does.

    Args:
        shape: batch and seq, both at least 1.
        batch: keyword arguments: `cu_seq_lens_q` `[documents + 1]`, `attention_mask` and `position_ids` `[batch, seq]`,
            as far as there are any.
        capacity: share of the tokens of each document that pass; rounded down, at least one.

    Raises:
        ValueError: there is no `cu_seq_lens_q`, and `attention_mask` is not two-dimensional.
    """
    import torch

    rows, seq = shape
    bounds, mask, positions = (batch.get(key) for key in BATCH)
    real = real_tokens(shape, batch, device)
    if bounds is not None:
        ends = bounds[1:].to(device=device, dtype=torch.int64)
        numbers = torch.bucketize(torch.arange(seq, device=device), ends, right=True)[None]
        count = len(ends)
    elif mask is not None:
        if mask.ndim != 2:  # noqa: PLR2004 - batch and seq
            raise ValueError(
                "Mixture-of-Depths counts the tokens of each document, which an attention_mask of shape "
                f"{list(mask.shape)} does not tell. Expected a mask of shape [batch, seq]."
            )
        count, numbers = rows, torch.arange(rows, device=device)[:, None].expand(rows, seq)
    else:
        starts = torch.zeros(rows, seq, dtype=torch.int64, device=device)
        starts[:, 0] = 1
        if positions is not None and positions.ndim == 2:  # noqa: PLR2004 - batch and seq
            starts[:, 1:] = (positions.diff(dim=1) != 1).to(device=device, dtype=torch.int64)
        numbers = starts.flatten().cumsum(0).view(rows, seq) - 1
        count = int(numbers[-1, -1]) + 1
    numbers = numbers.masked_fill(~real, count)
    lengths = torch.bincount(numbers.flatten(), minlength=count + 1)
    share = Fraction(capacity).limit_denominator(DENOMINATOR)
    passing = (lengths * share.numerator // share.denominator).clamp(min=1)
    passing[count] = 0
    return Documents(numbers, passing, real)


def highest_of_each(weights: Tensor, documents: Documents) -> Tensor:
    """Choose the tokens of each document with the highest `weights` `[batch, seq]`, up to its capacity.

    Of equal weights the first is chosen. Returns `[batch, seq]`, bool (expert-choice routing: arXiv 2404.02258, section
    3.3).
    """
    import torch

    numbers = documents.numbers.flatten()
    order = torch.argsort(weights.detach().flatten(), descending=True, stable=True)
    order = order[torch.argsort(numbers[order], stable=True)]
    sorted_numbers = numbers[order]
    lengths = torch.bincount(numbers, minlength=len(documents.capacity))
    ranks = torch.arange(len(order), device=order.device) - (lengths.cumsum(0) - lengths)[sorted_numbers]
    chosen = torch.empty_like(order, dtype=torch.bool)
    chosen[order] = ranks < documents.capacity[sorted_numbers]
    return chosen.view_as(weights)


def pass_chosen(
    block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], weights: Tensor, chosen: Tensor
) -> object:
    """Pass the chosen tokens through a block as if there were no others, and leave the others as they are.

    `x + r f(x)` for a chosen token with router weight `r`, `x` for any other, where `f(x)` is what the block adds to
    `x` (arXiv 2404.02258, equation 1).

    Args:
        args: arguments of its forward, see `routed_forward`.
        weights: router weights, `[batch, seq]`.
        chosen: `[batch, seq]`, bool.

    Returns:
        The block's own output, with hidden states of all tokens.
    """
    import torch

    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    rows, columns = chosen.nonzero(as_tuple=True)
    if not len(rows):  # one token passes for the type of the result, which is then dropped
        rows = columns = chosen.new_zeros(1, dtype=torch.int64)
    tokens = Gathered.of(rows, columns, hidden)
    given = {name: tokens.gather(value) for name, value in kwargs.items()}
    if kwargs.get("cu_seq_lens_q") is not None:
        given |= tokens.bounds(kwargs["cu_seq_lens_q"])
    output: Any = type(block).forward(block, *(tokens.gather(value) for value in args), **given)
    passed: Tensor = output[0] if isinstance(output, tuple) else output
    old = hidden[rows, columns]
    wide = torch.promote_types(old.dtype, weights.dtype)
    # A weight of exactly 1 gives the output of the block, bit by bit.
    new = torch.lerp(old.to(wide), passed[rows, tokens.slots].to(wide), weights[rows, columns, None].to(wide))
    new = torch.where(chosen[rows, columns, None], new.to(hidden.dtype), old)
    result = hidden.index_put((rows, columns), new)
    return (result, *output[1:]) if isinstance(output, tuple) else result


@dataclass(frozen=True)
class Gathered:
    """The chosen tokens of a batch, side by side in shorter rows, in their order.

    Attributes:
        columns: `[batch, longest]`, int64: the place of each in its row; 0 in slots without a token.
        filled: `[batch, longest]`, bool: whether a slot has a token; the others stand behind.
        slots: `[chosen]`, int64: the slot of each chosen token, in the order of rows and columns.
    """

    columns: Tensor
    filled: Tensor
    slots: Tensor
    tokens: int

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, hidden: Tensor) -> Gathered:
        """Place chosen tokens of `hidden` `[batch, seq, hidden]` side by side.

        Args:
            rows: `[chosen]`, int64, ascending; at least one token.
            columns: `[chosen]`, int64, ascending in each row.
        """
        import torch

        counts = torch.bincount(rows, minlength=hidden.shape[0])
        slots = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        longest = len(rows) if hidden.shape[0] == 1 else int(counts.max())
        places = rows.new_zeros(hidden.shape[0], longest)
        places[rows, slots] = columns
        filled = torch.arange(longest, device=rows.device) < counts[:, None]
        return cls(places, filled, slots, hidden.shape[1])

    def gather(self, value: object) -> Any:
        """Gather the chosen tokens of an argument of a block.

        Tensors `[batch or 1, seq, …]` become `[batch, longest, …]`, masks `[batch or 1, heads, seq, seq]` become
        `[batch, heads, longest, longest]`, also in tuples. Anything else is returned as it is.
        """
        import torch

        if isinstance(value, tuple):
            return tuple(self.gather(one) for one in value)
        if not isinstance(value, torch.Tensor) or value.ndim < 2 or value.shape[0] not in {1, len(self.columns)}:  # noqa: PLR2004
            return value
        if value.ndim == FLAT_MASK and value.shape[-2:] == (self.tokens, self.tokens):
            mask = self._mask(value)
            vars(mask).update(vars(value))  # the mark of `attention_backend.marked_mask`
            return mask
        return self._tokens(value) if value.shape[1] == self.tokens else value

    def _tokens(self, value: Tensor) -> Tensor:
        """`[batch, longest, …]` of a tensor `[batch or 1, seq, …]`."""
        import torch

        if len(self.columns) == 1:
            return value.index_select(1, self.columns[0])
        rows = torch.arange(len(self.columns), device=value.device)[:, None]
        return value.expand(len(self.columns), *value.shape[1:])[rows, self.columns]

    def _mask(self, mask: Tensor) -> Tensor:
        """`[batch, heads, longest, longest]`: a slot without a token is seen by itself alone."""
        import torch

        if len(self.columns) == 1:
            return mask.index_select(2, self.columns[0]).index_select(3, self.columns[0])
        batch, longest = self.columns.shape
        mask = mask.expand(batch, *mask.shape[1:])
        places = self.columns[:, None]
        mask = mask.gather(2, places[..., None].expand(batch, mask.shape[1], longest, self.tokens))
        mask = mask.gather(3, places[:, :, None].expand(batch, mask.shape[1], longest, longest))
        empty = ~self.filled[:, None]
        own = torch.eye(longest, dtype=torch.bool, device=mask.device) & empty[..., None]
        hidden, seen = (False, True) if mask.dtype == torch.bool else (torch.finfo(mask.dtype).min, 0)
        return mask.masked_fill(empty[:, :, None], hidden).masked_fill(own, seen)

    def bounds(self, cu_seq_lens: Tensor) -> dict[str, Any]:
        """Bounds of the documents with chosen tokens in a flattened batch of one row, which keep attention within them.

        Args:
            cu_seq_lens: `[documents + 1]`, int32.

        Returns:
            `cu_seq_lens_q` and `cu_seq_lens_k`, `[documents with a token + 1]`, int32; `max_length_q` and
            `max_length_k`, 0 without a token.
        """
        import torch

        ends = cu_seq_lens[1:].to(torch.int64)
        documents = torch.bucketize(self.columns[0], ends, right=True)
        counts = torch.bincount(documents, minlength=len(ends))[: len(ends)]
        counts = counts[counts > 0]
        bounds = torch.cat((counts.new_zeros(1), counts.cumsum(0))).to(torch.int32)
        longest = int(counts.max()) if len(counts) else 0
        return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
