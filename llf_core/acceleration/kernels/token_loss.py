"""Log-probabilities and their sum from hidden states: one implementation for every stage.

Exactness: sums, exponentials and logarithms are float32 (float64 for float64), so a loss is that of
`F.cross_entropy(logits.float())` on the same logits to about 1e-6, whatever dtype the products have. Gradients are
rounded to the products' dtype where autograd rounds them: the logits' gradient once, each product once; and once more
where the rows' gradient, made in the forward pass, is multiplied by what comes from above. Scale and soft cap, which
models apply in their own dtype, are float32 here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch.autograd import Function

from llf_core.acceleration.kernels.cross_entropy import Gradients, Terms, cross_entropies, factored, room
from llf_core.acceleration.patching.attention_backend import computing_dtype
from llf_core.config.ignore_index import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from llf_core.acceleration.kernels.context import Context
    from llf_core.acceleration.patching.causal_head import Head

    class _Context(Context, Protocol):
        terms: Terms
        summed: bool
        made: bool
        dtypes: list[torch.dtype | None]


def log_probs(rows: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Log-probability of one token after each row.

    Args:
        rows: `[N, H]`, hidden states; the logits `[N, V]` for a head without weight.
        head: what makes logits of them.
        targets: `[N]`, int64, each a token of the vocabulary.

    Returns:
        `[N]`, float32 (float64 for float64), with a graph.
    """
    return -_costs(rows, head, targets, 0.0, summed=False)


def nll_sum(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    label_smoothing: float = 0.0,
    note: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """Sum of the negative log-likelihoods of the targets.

    Only rows with a target go through the head.

    Args:
        hidden: `[..., H]`, hidden states; the logits `[..., V]` for a head without weight.
        head: what makes logits of them.
        targets: `[...]`, int64, the token after each position; -100 where nothing is learned.
        label_smoothing: share of the probability that is spread evenly over the vocabulary, 0 to 1.
        note: called with the places that have a target, `[N]` among all in a row, and what each costs, `[N]` without
            a graph; costs nothing.

    Returns:
        A float32 (float64 for float64) scalar with a graph; 0 where there is no target. Through a head that trains
        it can be walked backward once.

    Source:
        Label smoothing as in arXiv 1512.00567, section 7.
    """
    rows, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    learned = (targets != IGNORED).nonzero()[:, 0]
    if len(learned) < len(targets):
        rows, targets = rows.index_select(0, learned), targets.index_select(0, learned)
    heard = None if note is None else partial(note, learned)
    return _costs(rows, head, targets, label_smoothing, summed=True, note=heard)


def _costs(
    rows: Tensor,
    head: Head,
    targets: Tensor,
    smoothing: float,
    *,
    summed: bool,
    note: Callable[[Tensor], object] | None = None,
) -> Tensor:
    rows = rows.contiguous()
    terms = Terms(head.scale, head.softcap, smoothing, products_dtype(rows, head))
    if not torch.is_grad_enabled():
        costs = cross_entropies(rows, head.weight, head.bias, targets, terms, Gradients(None, None, None))
        if note is not None:
            note(costs)
        return costs.sum() if summed else costs
    result: Tensor = CrossEntropy.apply(rows, head.weight, head.bias, targets, terms, summed, note)  # type: ignore[no-untyped-call]
    return result


def products_dtype(rows: Tensor, head: Head) -> torch.dtype:
    """The dtype that rows are multiplied with a head in: autocast's where it is on; that of logits as it is."""
    return rows.dtype if head.weight is None else computing_dtype(head.weight)


class CrossEntropy(Function):
    """`[N]` costs of rows, or their sum.

    Where the sum is asked for or the head is frozen, the forward pass makes all gradients and the backward pass only
    multiplies. Costs of single rows through a head that trains are computed again in the backward pass, since the
    factor of each row enters the gradient of the weight.
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
        note: Callable[[Tensor], object] | None,
    ) -> Tensor:
        """See the class."""
        ctx.terms, ctx.summed, ctx.made = terms, summed, summed or not any(ctx.needs_input_grad[1:3])
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (rows, weight, bias)]
        gradients = room(rows, weight, bias, terms, ctx.needs_input_grad[:3] if ctx.made else (False,) * 3)
        costs = cross_entropies(rows, weight, bias, targets, terms, gradients)
        if note is not None:
            note(costs.detach())
        if ctx.made:
            ctx.save_for_backward(gradients.rows, gradients.weight, gradients.bias)
        else:
            ctx.save_for_backward(rows, weight, bias, targets)
        return costs.sum() if summed else costs

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        """See the class."""
        terms = ctx.terms
        if ctx.made:
            gradients = Gradients(*ctx.saved_tensors)
            factor = grad / terms.lift
        else:
            rows, weight, bias, targets = ctx.saved_tensors
            gradients = room(rows, weight, bias, terms, ctx.needs_input_grad[:3])
            cross_entropies(rows, weight, bias, targets, terms, gradients, grad)
            factor = torch.full_like(grad[:0].sum(), 1 / terms.lift)
        return (*factored(gradients, factor, ctx.dtypes), None, None, None, None)
