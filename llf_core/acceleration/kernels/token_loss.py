"""Log-probabilities and their sum from hidden states: one implementation for every stage.

Precision: sums, exponentials and logarithms are float32 (float64 for float64), so the loss equals
`F.cross_entropy(logits.float())` on the same logits to about 1e-6, whatever the dtype of the products. Gradients are
rounded to the dtype of the products where autograd rounds them: the gradient of the logits once, and each product once;
and once more where the gradient of the rows from the forward pass is multiplied by the incoming gradient. Scale and
soft cap, which models apply in their own dtype, are float32 here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch.autograd import Function

from llf_core.acceleration.kernels.cross_entropy import (
    Gradients,
    Terms,
    allocate_gradients,
    cross_entropies,
    scale_gradients,
)
from llf_core.acceleration.patching.attention_backend import computing_dtype
from llf_core.config.ignore_index import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from llf_core.acceleration.kernels.context import Context
    from llf_core.acceleration.kernels.cross_entropy import TokenWeights
    from llf_core.acceleration.patching.causal_head import Head

    class _Context(Context, Protocol):
        terms: Terms
        summed: bool
        made: bool
        dtypes: list[torch.dtype | None]


def log_probs(rows: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Log-probability `[N]` of a token after each row, differentiable, without storing all logits.

    float32 (float64 for float64); minus torch's `F.cross_entropy`.

    Args:
        rows: hidden states `[N, H]`; logits `[N, V]` for a head without weight.
        targets: token ids `[N]`, int64.
    """
    return -_costs(rows, head, targets, 0.0, summed=False)


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
    return _costs(rows, head, targets, label_smoothing, summed=True, record_losses=heard, weights=weights)


def _costs(
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
