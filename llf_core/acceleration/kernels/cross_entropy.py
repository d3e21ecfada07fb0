"""Cross-entropy of many rows over a large vocabulary without ever holding all logits.

Rows go through the head in chunks of a fixed size in bytes. A chunk's logits become its gradient in place, block by
block in float32, and the product with the head's weight follows at once. So the forward pass makes the gradients, and
what is kept for the backward pass is as large as the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llf_core.acceleration.kernels.matmul import product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    BlockCost = Callable[[Tensor, slice, slice, Tensor | None], Tensor]
    """Costs `[rows]` of a block: of its scaled and capped logits `[rows, V]`, its place among all rows and in its
    chunk, and the derivative of the soft cap. Where gradients are wanted, that of the block's unscaled logits
    (lifted) is left in their place.
    """

# Bytes of a chunk's logits: the head's weight is read once a chunk, and a product wants some hundred rows.
CHUNK = {"cpu": 48 << 20}
CHUNK_ELSEWHERE = 256 << 20
# Bytes of the float32 copy that statistics are made in: on a CPU it stays in the cache.
BLOCK = {"cpu": 2 << 20}
# Bytes of a partial gradient of the weight before it is added in float32.
PART = 8 << 20
# float16 has no room for small probabilities: they are lifted by this for the product.
LIFT = 1024.0


@dataclass(frozen=True)
class Terms:
    """What a row costs, apart from its logits.

    Attributes:
        scale: of the logits.
        softcap: logits become `softcap · tanh(logits / softcap)`.
        smoothing: share of the probability that is spread evenly over the vocabulary.
        dtype: in which the products are made.
    """

    scale: float
    softcap: float | None
    smoothing: float
    dtype: torch.dtype

    @property
    def exact(self) -> torch.dtype:
        """In which everything but the products is made."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def lift(self) -> float:
        """By what gradients are multiplied while they are products."""
        return LIFT if self.dtype == torch.float16 else 1.0


@dataclass
class Gradients:
    """Sums of a row's gradients over all rows that were seen; None where none is wanted. Lifted, see `LIFT`.

    Attributes:
        rows: `[N, H]`, in the products' dtype.
        weight: `[V, H]`; where there are several chunks, float32 (or float64), else in the products' dtype.
        bias: `[V]`, float32 (or float64).
    """

    rows: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @property
    def wanted(self) -> bool:
        """Whether there is any."""
        return not (self.rows is None and self.weight is None and self.bias is None)


def _pieces(total: int, bytes_each: int, limit: int) -> Iterator[slice]:
    size = max(1, limit // bytes_each)
    for start in range(0, total, size):
        yield slice(start, min(total, start + size))


def apply_terms(logits: Tensor, terms: Terms, slope: Tensor | None) -> None:
    """Applies scale and soft cap in place, and writes the derivative of the soft cap to `slope`."""
    if terms.scale != 1.0:
        logits.mul_(terms.scale)
    if terms.softcap is not None:
        logits.div_(terms.softcap).tanh_()
        if slope is not None:
            torch.mul(logits, logits, out=slope).neg_().add_(1.0)
        logits.mul_(terms.softcap)


def _costs(logits: Tensor, targets: Tensor, terms: Terms) -> Tensor:
    """Costs `[rows]` of a block; its logits `[rows, V]` become log-probabilities in place."""
    torch.ops.aten._log_softmax.out(logits, -1, False, out=logits)  # noqa: FBT003 - row by row, so in place
    costs = logits.gather(1, targets[:, None])[:, 0].neg_()
    if terms.smoothing:
        costs.mul_(1.0 - terms.smoothing).sub_(logits.mean(1), alpha=terms.smoothing)
    return costs


def _differentiate(block: Tensor, targets: Tensor, terms: Terms, slope: Tensor | None, factors: Tensor | None) -> None:
    """Turns a block's log-probabilities into the (lifted) gradient of its unscaled logits, in place."""
    block.exp_()
    if terms.smoothing:
        block.sub_(terms.smoothing / block.shape[1])
    sure = torch.full_like(targets[:, None], terms.smoothing - 1.0, dtype=block.dtype)
    block.scatter_add_(1, targets[:, None], sure)
    if slope is not None:
        block.mul_(slope)
    if factors is not None:
        block.mul_(factors[:, None])
    if terms.scale * terms.lift != 1.0:
        block.mul_(terms.scale * terms.lift)


class Chunks:
    """The buffers of one pass over the rows, made once and used for every chunk."""

    def __init__(self, rows: Tensor, weight: Tensor | None, bias: Tensor | None, terms: Terms) -> None:
        self.rows, self.weight, self.bias, self.terms = rows, weight, bias, terms
        self.vocab = rows.shape[1] if weight is None else weight.shape[0]
        self.kind = rows.device.type
        self._logits: Tensor | None = None
        self._block: Tensor | None = None
        self._slope: Tensor | None = None

    def slices(self) -> Iterator[slice]:
        """The chunks."""
        bytes_each = self.vocab * self.terms.dtype.itemsize
        return _pieces(len(self.rows), bytes_each, CHUNK.get(self.kind, CHUNK_ELSEWHERE))

    def logits(self, part: slice, rows: Tensor, gradient: Tensor | None) -> Tensor:
        """`[rows, V]` of a chunk, unscaled; without a weight in the place of its own gradient."""
        count = part.stop - part.start
        if self.weight is None and gradient is not None:
            return gradient[part].copy_(rows)
        if self._logits is None:
            self._logits = rows.new_empty(count, self.vocab)
        logits = self._logits[:count]
        if self.weight is None:
            return logits.copy_(rows)
        if self.bias is None:
            return torch.mm(rows, self.weight.t(), out=logits)
        return torch.addmm(self.bias, rows, self.weight.t(), out=logits)

    def block(self, logits: Tensor) -> Tensor:
        """A block's logits in the exact dtype."""
        if logits.dtype == self.terms.exact:
            return logits
        if self._block is None:
            self._block = torch.empty_like(logits, dtype=self.terms.exact)
        return self._block[: len(logits)].copy_(logits)

    def slope(self, block: Tensor) -> Tensor | None:
        """Room for the derivative of the soft cap."""
        if self.terms.softcap is None:
            return None
        if self._slope is None:
            self._slope = torch.empty_like(block)
        return self._slope[: len(block)]

    def blocks(self, count: int) -> Iterator[slice]:
        """The blocks of a chunk."""
        limit = BLOCK.get(self.kind, CHUNK_ELSEWHERE)
        return _pieces(count, self.vocab * self.terms.exact.itemsize, limit)


def cross_entropies(
    rows: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    targets: Tensor,
    terms: Terms,
    gradients: Gradients,
    factors: Tensor | None = None,
) -> Tensor:
    """Costs of all rows, chunk by chunk; fills `gradients`.

    Args:
        rows: `[N, H]`, or the logits `[N, V]` where there is no weight.
        weight: `[V, H]`.
        bias: `[V]`.
        targets: `[N]`.
        terms: of the cost.
        gradients: buffers for what is wanted, see `room`.
        factors: `[N]`, by which each row's gradients are multiplied; unset, 1.

    Returns:
        `[N]` in the exact dtype.
    """

    def cost(block: Tensor, outer: slice, _inner: slice, slope: Tensor | None) -> Tensor:
        found = _costs(block, targets[outer], terms)
        if gradients.wanted:
            _differentiate(block, targets[outer], terms, slope, None if factors is None else factors[outer])
        return found

    return chunked(rows, weight, bias, terms, gradients, lambda _part: cost)


def chunked(
    rows: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    terms: Terms,
    gradients: Gradients,
    begin: Callable[[slice], BlockCost],
) -> Tensor:
    """Costs of all rows, chunk by chunk and block by block; fills `gradients`.

    Args:
        rows: `[N, H]`, or the logits `[N, V]` where there is no weight.
        weight: `[V, H]`.
        bias: `[V]`.
        terms: of the logits.
        gradients: buffers for what is wanted, see `room`.
        begin: called with the rows of each chunk; returns what gives the costs of its blocks.

    Returns:
        `[N]` in the exact dtype.
    """
    if weight is not None:
        weight = weight.to(terms.dtype)
        bias = None if bias is None else bias.to(terms.dtype)
    costs = rows.new_empty(len(rows), dtype=terms.exact)
    chunks = Chunks(rows, weight, bias, terms)
    for part in chunks.slices():
        chunk = rows[part].to(terms.dtype)
        logits = chunks.logits(part, chunk, gradients.rows)
        cost = begin(part)
        for inner in chunks.blocks(len(chunk)):
            outer = slice(part.start + inner.start, part.start + inner.stop)
            block = chunks.block(logits[inner])
            slope = chunks.slope(block) if gradients.wanted else None
            apply_terms(block, terms, slope)
            costs[outer] = cost(block, outer, inner, slope)
            if not gradients.wanted:
                continue
            if gradients.bias is not None:
                gradients.bias += block.sum(0)
            if block.dtype != logits.dtype:
                logits[inner].copy_(block)
        if weight is None:
            continue
        if gradients.rows is not None:
            gradients.rows[part] = product(logits, weight)
        if gradients.weight is not None:
            add_outer(logits, chunk, gradients.weight, first=part.start == 0)
    return costs


def add_outer(gradient: Tensor, rows: Tensor, total: Tensor, *, first: bool) -> None:
    """Adds `gradientᵀ @ rows` to `total`, or writes it there."""
    if total.dtype == gradient.dtype:
        total.addmm_(gradient.t(), rows, beta=0 if first else 1)
        return
    for part in _pieces(len(total), rows.shape[1] * rows.dtype.itemsize, PART):
        if first:
            total[part] = gradient[:, part].t() @ rows
        else:
            total[part] += gradient[:, part].t() @ rows


def room(rows: Tensor, weight: Tensor | None, bias: Tensor | None, terms: Terms, wants: Sequence[bool]) -> Gradients:
    """Buffers for the gradients of rows, weight and bias that are wanted."""
    made_rows = torch.empty_like(rows, dtype=terms.dtype) if wants[0] else None
    made_weight, made_bias = None, None
    if weight is not None and wants[1]:
        single = sum(1 for _ in Chunks(rows, weight, bias, terms).slices()) == 1
        # Sums of rounded parts would lose what one product keeps.
        made_weight = torch.empty_like(weight, dtype=terms.dtype if single else terms.exact)
        if len(rows) == 0:
            made_weight.zero_()
    if bias is not None and wants[2]:
        made_bias = torch.zeros_like(bias, dtype=terms.exact)
    return Gradients(made_rows, made_weight, made_bias)


def multiplied(gradient: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """`gradient · factor` as `dtype`; in place where it has that dtype, else part by part in float32."""
    if gradient.dtype == dtype:
        return gradient.mul_(factor)
    result = torch.empty_like(gradient, dtype=dtype)
    exact = torch.promote_types(gradient.dtype, torch.float32)
    for part in _pieces(len(gradient), gradient[:1].numel() * exact.itemsize, PART):
        result[part] = gradient[part].to(exact).mul_(factor)
    return result


def factored(
    gradients: Gradients, factor: Tensor, dtypes: Sequence[torch.dtype | None]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What the backward pass gives back for rows, weight and bias.

    Args:
        gradients: made before; that of the weight is changed in place.
        factor: what they are multiplied by: a scalar, or `[N]`, one a row.
        dtypes: of rows, weight and bias.
    """
    rows, weight, bias = gradients.rows, gradients.weight, gradients.bias
    if rows is not None:
        rows = (rows * (factor[:, None] if factor.ndim else factor)).to(dtypes[0])
    if weight is not None:  # large, so in place: autograd refuses a second walk
        weight = multiplied(weight, factor, dtypes[1] or weight.dtype)
    if bias is not None:
        bias = (bias * factor).to(dtypes[2])
    return rows, weight, bias
