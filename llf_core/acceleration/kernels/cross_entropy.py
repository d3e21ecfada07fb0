"""Cross-entropy of many rows over a large vocabulary, without storing all logits.

Rows pass through the head in chunks of a fixed number of bytes. The logits of a chunk are replaced by their gradient in
place, block by block in float32, and multiplied by the head's weight right away. So the forward pass computes the
gradients, and the backward pass needs only memory of the size of the rows.

Log-probabilities and their sum from hidden states: one implementation for every stage.

Precision: sums, exponentials and logarithms are float32 (float64 for float64), so the loss equals
`F.cross_entropy(logits.float())` on the same logits to about 1e-6, whatever the dtype of the products. Gradients are
rounded to the dtype of the products where autograd rounds them: the gradient of the logits once, and each product once;
and once more where the gradient of the rows from the forward pass is multiplied by the incoming gradient. Scale and
soft cap, which models apply in their own dtype, are float32 here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch.autograd import Function

from llf_core.acceleration.patching.attention_backend import computing_dtype
from llf_core.config.data import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from llf_core.acceleration.kernels.context import Context
    from llf_core.acceleration.patching.causal_head import Head

    BlockCost = Callable[[Tensor, slice, slice, Tensor | None], Tensor]
    """Costs `[rows]` of a block from its scaled and capped logits `[rows, V]`.

    The slices are the block's place in all rows and in the chunk; the last argument is the derivative of the soft cap.
    If gradients are wanted, the (scaled) gradient of the unscaled logits replaces the logits.
    """
    TokenWeights = Callable[[Tensor, Tensor], Tensor]
    """Weights `[rows]`, without gradient, from the log-probabilities `[rows, V]` of a block and its costs `[rows]`."""

    class _Context(Context, Protocol):
        terms: Terms
        summed: bool
        made: bool
        dtypes: list[torch.dtype | None]


# Bytes of a chunk's logits: the head's weight is read once per chunk, and a product needs some hundred rows.
CHUNK = {"cpu": 48 << 20}
CHUNK_ELSEWHERE = 256 << 20

# Bytes of the float32 copy for statistics: on a CPU it stays in the cache.
BLOCK = {"cpu": 2 << 20}

# Bytes of a partial gradient of the weight before it is added in float32.
PART = 8 << 20

# float16 cannot represent small probabilities: gradients are scaled by this in the product.
GRADIENT_SCALE = 1024.0


@dataclass(frozen=True)
class Terms:
    """Parameters of the cross-entropy: label smoothing in [0, 1], and `softcap * tanh(logits / softcap)`."""

    scale: float
    softcap: float | None
    smoothing: float
    dtype: torch.dtype
    weights: TokenWeights | None = None

    @property
    def exact(self) -> torch.dtype:
        """Dtype of everything but the matrix products: at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def gradient_scale(self) -> float:
        """Factor that keeps the gradients in float16 products from underflowing; 1 in other dtypes."""
        return GRADIENT_SCALE if self.dtype == torch.float16 else 1.0


@dataclass
class Gradients:
    """Gradients, accumulated over the chunks and scaled by `Terms.gradient_scale`; None where not needed.

    Attributes:
        rows: `[N, H]`, or `[N, V]` where the rows are logits, in the dtype of the products.
        weight: `[V, H]`; float32 (or float64) if there are several chunks, else in the dtype of the products.
        bias: `[V]`, float32 (or float64).
    """

    rows: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @property
    def wanted(self) -> bool:
        """Whether any gradient is needed."""
        return not (self.rows is None and self.weight is None and self.bias is None)


def _pieces(total: int, bytes_each: int, limit: int) -> Iterator[slice]:
    size = max(1, limit // bytes_each)
    for start in range(0, total, size):
        yield slice(start, min(total, start + size))


def apply_terms(logits: Tensor, terms: Terms, slope: Tensor | None) -> None:
    """Scale and cap logits `[rows, V]` in place: `softcap * tanh(scale * z / softcap)` (Gemma 2, arXiv 2408.00118).

    `slope` `[rows, V]` receives the derivative of the soft cap.
    """
    if terms.scale != 1.0:
        logits.mul_(terms.scale)
    if terms.softcap is not None:
        logits.div_(terms.softcap).tanh_()
        if slope is not None:
            torch.mul(logits, logits, out=slope).neg_().add_(1.0)
        logits.mul_(terms.softcap)


def _cross_entropy_costs(logits: Tensor, targets: Tensor, terms: Terms) -> Tensor:
    """Cross-entropy `[rows]` of a block; its logits `[rows, V]` become log-probabilities in place."""
    torch.ops.aten._log_softmax.out(logits, -1, False, out=logits)  # noqa: FBT003 - row by row, so in place
    costs = logits.gather(1, targets[:, None])[:, 0].neg_()
    if terms.smoothing:
        costs.mul_(1.0 - terms.smoothing).sub_(logits.mean(1), alpha=terms.smoothing)
    return costs


def _differentiate(block: Tensor, targets: Tensor, terms: Terms, slope: Tensor | None, factors: Tensor | None) -> None:
    """Replace the log-probabilities of a block by the gradient of its unscaled logits, times `gradient_scale`."""
    block.exp_()
    if terms.smoothing:
        block.sub_(terms.smoothing / block.shape[1])
    sure = torch.full_like(targets[:, None], terms.smoothing - 1.0, dtype=block.dtype)
    block.scatter_add_(1, targets[:, None], sure)
    if slope is not None:
        block.mul_(slope)
    if factors is not None:
        block.mul_(factors[:, None])
    if terms.scale * terms.gradient_scale != 1.0:
        block.mul_(terms.scale * terms.gradient_scale)


class Chunks:
    """Buffers of a pass over rows `[N, H]`, or logits `[N, V]` without a weight, used for every chunk."""

    def __init__(self, rows: Tensor, weight: Tensor | None, bias: Tensor | None, terms: Terms) -> None:
        self.rows, self.weight, self.bias, self.terms = rows, weight, bias, terms
        self.vocab = rows.shape[1] if weight is None else weight.shape[0]
        self.kind = rows.device.type
        self._logits: Tensor | None = None
        self._block: Tensor | None = None
        self._slope: Tensor | None = None

    def slices(self) -> Iterator[slice]:
        """Slices of the rows, one per chunk, whose logits take at most a fixed number of bytes; at least one row."""
        bytes_each = self.vocab * self.terms.dtype.itemsize
        return _pieces(len(self.rows), bytes_each, CHUNK.get(self.kind, CHUNK_ELSEWHERE))

    def logits(self, part: slice, rows: Tensor, gradient: Tensor | None) -> Tensor:
        """Compute the unscaled logits `[rows, V]` of a chunk into the shared buffer, which the next chunk overwrites.

        Without a weight, `rows` are logits, and the buffer of the gradient `[N, V]` holds them.
        """
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
        """Copy logits `[rows, V]` of a block into a shared buffer, unless they have the exact dtype."""
        if logits.dtype == self.terms.exact:
            return logits
        if self._block is None:
            self._block = torch.empty_like(logits, dtype=self.terms.exact)
        return self._block[: len(logits)].copy_(logits)

    def slope(self, block: Tensor) -> Tensor | None:
        """Shared buffer `[rows, V]` for the derivative of the soft cap of a block; None without a soft cap."""
        if self.terms.softcap is None:
            return None
        if self._slope is None:
            self._slope = torch.empty_like(block)
        return self._slope[: len(block)]

    def blocks(self, count: int) -> Iterator[slice]:
        """Slices of the blocks of a chunk; on a CPU a block's float32 copy stays in the cache."""
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
    """Compute the cross-entropy `[N]` of all rows in the exact dtype, chunk by chunk, and fill `gradients`.

    torch's `F.cross_entropy` with `label_smoothing`: arXiv 1512.00567, section 7.

    Args:
        rows: hidden states `[N, H]`, or logits `[N, V]` without a weight.
        weight: `[V, H]`, or None.
        bias: `[V]`, or None.
        targets: token ids `[N]`, int64.
        gradients: from `allocate_gradients`.
        factors: factor of each row's gradients, `[N]`; None for 1.
    """

    def cost(block: Tensor, outer: slice, _inner: slice, slope: Tensor | None) -> Tensor:
        found = _cross_entropy_costs(block, targets[outer], terms)
        scaled = None if factors is None else factors[outer]
        if terms.weights is not None:
            weights = terms.weights(block, found)
            found = found * weights
            scaled = weights if scaled is None else scaled * weights
        if gradients.wanted:
            _differentiate(block, targets[outer], terms, slope, scaled)
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
    """Compute a loss `[N]` of all rows in the exact dtype, chunk by chunk and block by block, and fill `gradients`.

    Args:
        rows: hidden states `[N, H]`, or logits `[N, V]` without a weight.
        weight: `[V, H]`, or None.
        bias: `[V]`, or None.
        gradients: from `allocate_gradients`.
        begin: called with the slice of each chunk; returns the function that computes the losses of its blocks.
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
            gradients.rows[part] = logits @ weight
        if gradients.weight is not None:
            _add_outer(logits, chunk, gradients.weight, first=part.start == 0)
    return costs


def _add_outer(gradient: Tensor, rows: Tensor, total: Tensor, *, first: bool) -> None:
    """Accumulate `gradientᵀ @ rows` of tensors `[rows, V]` and `[rows, H]` in `total` `[V, H]`, in its dtype.

    In float32 part by part, where the product itself is computed in half precision.
    """
    if total.dtype == gradient.dtype:
        total.addmm_(gradient.t(), rows, beta=0 if first else 1)
        return
    for part in _pieces(len(total), rows.shape[1] * rows.dtype.itemsize, PART):
        if first:
            total[part] = gradient[:, part].t() @ rows
        else:
            total[part] += gradient[:, part].t() @ rows


def allocate_gradients(
    rows: Tensor, weight: Tensor | None, bias: Tensor | None, terms: Terms, wants: Sequence[bool]
) -> Gradients:
    """Allocate buffers for the gradients of rows `[N, H]` (or logits `[N, V]`), weight `[V, H]` and bias `[V]`.

    The weight's is at least float32 where it is a sum over several chunks, the bias's always.
    """
    made_rows = torch.empty_like(rows, dtype=terms.dtype) if wants[0] else None
    made_weight, made_bias = None, None
    if weight is not None and wants[1]:
        single = sum(1 for _ in Chunks(rows, weight, bias, terms).slices()) == 1
        made_weight = torch.empty_like(weight, dtype=terms.dtype if single else terms.exact)
        if len(rows) == 0:
            made_weight.zero_()
    if bias is not None and wants[2]:
        made_bias = torch.zeros_like(bias, dtype=terms.exact)
    return Gradients(made_rows, made_weight, made_bias)


def _scale_tensor(gradient: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply a gradient `[rows, ...]` by a scalar and convert it, part by part in float32.

    In place if the dtype is the same: a copy would take as much memory as the weight.
    """
    if gradient.dtype == dtype:
        return gradient.mul_(factor)
    result = torch.empty_like(gradient, dtype=dtype)
    exact = torch.promote_types(gradient.dtype, torch.float32)
    for part in _pieces(len(gradient), gradient[:1].numel() * exact.itemsize, PART):
        result[part] = gradient[part].to(exact).mul_(factor)
    return result


def scale_gradients(
    gradients: Gradients, factor: Tensor, dtypes: Sequence[torch.dtype | None]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of rows `[N, H]` (`[N, V]` without a weight), weight `[V, H]` and bias `[V]`, times a factor.

    Args:
        factor: incoming gradient: a scalar, or `[N]`, one per row, where only the rows need a gradient.
        dtypes: dtypes of rows, weight and bias; None where no gradient is needed.
    """
    rows, weight, bias = gradients.rows, gradients.weight, gradients.bias
    if rows is not None:
        rows = (rows * (factor[:, None] if factor.ndim else factor)).to(dtypes[0])
    if weight is not None:  # large, so in place: autograd refuses a second backward pass
        weight = _scale_tensor(weight, factor, dtypes[1] or weight.dtype)
    if bias is not None:
        bias = (bias * factor).to(dtypes[2])
    return rows, weight, bias


@torch.no_grad()
def entropies(rows: Tensor, head: Head) -> Tensor:
    """Entropy `[N]` of the distribution after each row, `H = -Σ_v p_v log p_v`, in nats, detached.

    float32 (float64 for float64), computed chunk by chunk. Shannon, A mathematical theory of communication, 1948,
    section 6.

    Args:
        rows: hidden states `[N, H]`; logits `[N, V]` for a head without weight. A logit of -inf makes its row NaN.
    """
    vocab = rows.shape[1] if head.weight is None else len(head.weight)
    exact = torch.promote_types(rows.dtype, torch.float32)
    size = max(1, CHUNK.get(rows.device.type, CHUNK_ELSEWHERE) // (vocab * exact.itemsize))
    found = rows.new_empty(len(rows), dtype=exact)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        logits = head.logits(part if head.weight is None else part.to(head.weight.dtype))
        logged = torch.log_softmax(logits.to(exact), -1)
        found[start : start + size] = -(logged.exp() * logged).sum(-1)
    return found


def log_probs(rows: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Log-probability `[N]` of a token after each row, differentiable, without storing all logits.

    float32 (float64 for float64); minus torch's `F.cross_entropy`.

    Args:
        rows: hidden states `[N, H]`; logits `[N, V]` for a head without weight.
        targets: token ids `[N]`, int64.
    """
    return -_token_loss_costs(rows, head, targets, 0.0, summed=False)


def nll_sum(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    label_smoothing: float = 0.0,
    record_losses: Callable[[Tensor, Tensor], object] | None = None,
    weights: TokenWeights | None = None,
) -> Tensor:
    """Sum of the negative log-likelihoods of the targets, without storing all logits.

    torch's `F.cross_entropy`, summed; label smoothing as in arXiv 1512.00567, section 7. Only rows with a target pass
    through the head.

    Args:
        hidden: hidden states `[..., H]`; logits `[..., V]` for a head without weight.
        targets: `[...]`, int64: token after each position; -100 for positions without a loss.
        label_smoothing: probability mass that is spread evenly over the vocabulary, in [0, 1].
        record_losses: called with the positions that have a target, `[N]` in the flattened `[...]`, and their losses
            `[N]`, detached.
        weights: weight of each token from its distribution; None for 1.

    Returns:
        float32 (float64 for float64) scalar; 0 without targets. With a trained head, `backward` can be called once
        only.
    """
    rows, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    learned = (targets != IGNORED).nonzero()[:, 0]
    if len(learned) < len(targets):
        rows, targets = rows.index_select(0, learned), targets.index_select(0, learned)
    heard = None if record_losses is None else partial(record_losses, learned)
    return _token_loss_costs(rows, head, targets, label_smoothing, summed=True, record_losses=heard, weights=weights)


def _token_loss_costs(
    rows: Tensor,
    head: Head,
    targets: Tensor,
    smoothing: float,
    *,
    summed: bool,
    record_losses: Callable[[Tensor], object] | None = None,
    weights: TokenWeights | None = None,
) -> Tensor:
    rows = rows.contiguous()
    terms = Terms(head.scale, head.softcap, smoothing, products_dtype(rows, head), weights)
    if not torch.is_grad_enabled():
        costs = cross_entropies(rows, head.weight, head.bias, targets, terms, Gradients(None, None, None))
        if record_losses is not None:
            record_losses(costs)
        return costs.sum() if summed else costs
    result: Tensor = CrossEntropy.apply(rows, head.weight, head.bias, targets, terms, summed, record_losses)
    return result


def products_dtype(rows: Tensor, head: Head) -> torch.dtype:
    """Dtype in which rows `[N, H]` are multiplied with a head: autocast's if enabled; logits `[N, V]` keep theirs."""
    return rows.dtype if head.weight is None else computing_dtype(head.weight)


class CrossEntropy(Function):
    """Autograd function: cross-entropy of each row, `[N]`, or their sum.

    For the sum, or with a frozen head, the forward pass computes all gradients and the backward pass scales them. For
    single rows with a trained head the backward pass computes them again, since each row's factor enters the gradient
    of the weight.
    """

    @staticmethod
    def forward(
        ctx: _Context,
        rows: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        targets: Tensor,
        terms: Terms,
        summed: bool,
        record_losses: Callable[[Tensor], object] | None,
    ) -> Tensor:
        """Compute the cross-entropy `[N]`, or its sum, and all gradients where the backward pass can scale them.

        Arguments are as in `kernels.cross_entropy.cross_entropies`: rows `[N, H]` or logits `[N, V]`.
        """
        ctx.terms, ctx.summed, ctx.made = terms, summed, summed or not any(ctx.needs_input_grad[1:3])
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (rows, weight, bias)]
        gradients = allocate_gradients(
            rows, weight, bias, terms, ctx.needs_input_grad[:3] if ctx.made else (False,) * 3
        )
        costs = cross_entropies(rows, weight, bias, targets, terms, gradients)
        if record_losses is not None:
            record_losses(costs.detach())
        if ctx.made:
            ctx.save_for_backward(gradients.rows, gradients.weight, gradients.bias)
        else:
            ctx.save_for_backward(rows, weight, bias, targets)
        return costs.sum() if summed else costs

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients of the forward pass, or compute them if each row has its own factor.

        `grad` is a scalar or `[N]`; returns gradients of rows `[N, H]` or `[N, V]`, weight `[V, H]` and bias `[V]`.
        """
        terms = ctx.terms
        if ctx.made:
            gradients = Gradients(*ctx.saved_tensors)
            factor = grad / terms.gradient_scale
        else:
            rows, weight, bias, targets = ctx.saved_tensors
            gradients = allocate_gradients(rows, weight, bias, terms, ctx.needs_input_grad[:3])
            cross_entropies(rows, weight, bias, targets, terms, gradients, grad)
            factor = torch.full_like(grad[:0].sum(), 1 / terms.gradient_scale)
        return (*scale_gradients(gradients, factor, ctx.dtypes), None, None, None, None)
