"""Divergence between the next-token distributions of a student and a teacher, without storing all logits.

As in `kernels.cross_entropy`: rows pass through both heads in chunks, the logits of a chunk are replaced by their
gradient in place, and the forward pass computes all gradients. Statistics are float32 (float64 for float64).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch.autograd import Function

from llf_core.acceleration.kernels.cross_entropy import (
    Chunks,
    Gradients,
    Terms,
    allocate_gradients,
    apply_terms,
    chunked,
    products_dtype,
    scale_gradients,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from llf_core.acceleration.kernels.context import Context
    from llf_core.acceleration.kernels.cross_entropy import BlockCost
    from llf_core.acceleration.patching.causal_head import Head

    class _Context(Context, Protocol):
        factor: float
        dtypes: list[torch.dtype | None]


def divergence_sum(
    hidden: Tensor,
    head: Head,
    teacher_hidden: Tensor,
    teacher_head: Head,
    learned_rows: Tensor,
    temperature: float = 1.0,
    beta: float = 0.5,
    record_losses: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """Sum of generalized Jensen-Shannon divergences between teacher p and student q: `T² * Σ D(p, q)`.

    With `p = softmax(z_teacher / T)`, `q = softmax(z / T)` and `m = βp + (1 - β)q`:

    - `D = β KL(p ‖ m) + (1 - β) KL(q ‖ m)` for 0 < β < 1;
    - `D = KL(p ‖ q)` for β = 0: forward KL, the usual distillation, which is mode-covering;
    - `D = KL(q ‖ p)` for β = 1: reverse KL, which is mode-seeking.

    β = 0 and β = 1 are not limits of the first case, which tends to 0 there. GKD: arXiv 2306.13649, equation 1. The
    factor T² keeps the size of the gradients independent of the temperature (arXiv 1503.02531, section 2); TRL's GKD
    omits it. If one head has more rows (padding of the vocabulary), p and q are distributions over the tokens of both.

    Args:
        hidden: the student's hidden states `[..., H]`; logits `[..., V]` for a head without weight.
        teacher_hidden: the teacher's hidden states `[..., K]` at the same positions, without gradients.
        learned_rows: `[N]`, int64: positions that count, as indices into the flattened `[...]`.
        temperature: T, finite and above 0. Larger values give more weight to unlikely tokens.
        beta: β, in [0, 1].
        record_losses: called with `learned_rows` and their divergences `[N]`, detached.

    Returns:
        float32 (float64 for float64) scalar; 0 without rows, not finite if a logit is not. With a trained head,
        `backward` can be called once only.

    Raises:
        ValueError: `temperature` or `beta` is out of range.
    """
    common = min(_vocabulary(hidden, head), _vocabulary(teacher_hidden, teacher_head))
    hidden, head = _cut(hidden, head, common)
    teacher_hidden, teacher_head = _cut(teacher_hidden, teacher_head, common)
    if not (0.0 < temperature < math.inf and 0.0 <= beta <= 1.0):
        raise ValueError(
            "Distillation expects a temperature above 0 and a beta from 0 to 1, both finite, but got "
            f"{temperature} and {beta}."
        )
    rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, learned_rows)
    taught = teacher_hidden.reshape(-1, teacher_hidden.shape[-1]).index_select(0, learned_rows)
    terms = Terms(head.scale, head.softcap, 0.0, products_dtype(rows, head))
    teacher_terms = Terms(teacher_head.scale, teacher_head.softcap, 0.0, products_dtype(taught, teacher_head))
    teacher = Teacher(taught, teacher_head, teacher_terms, temperature, beta)
    if torch.is_grad_enabled():
        heard = None if record_losses is None else partial(record_losses, learned_rows)
        result: Tensor = Divergence.apply(rows, head.weight, head.bias, terms, teacher, heard)
        return result
    costs = divergences(rows, head.weight, head.bias, terms, teacher, Gradients(None, None, None))
    if record_losses is not None:
        record_losses(learned_rows, costs)
    return costs.sum()


@dataclass(frozen=True, eq=False)
class Teacher:
    """Teacher of a distillation, and parameters of the divergence, see `divergence_sum`.

    Attributes:
        rows: hidden states `[N, K]` at the positions that count; logits `[N, V]` for a head without weight.
    """

    rows: Tensor
    head: Head
    terms: Terms
    temperature: float
    beta: float


class Divergence(Function):
    """Autograd function: sum of divergences. The forward pass computes all gradients, the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: _Context,
        rows: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        terms: Terms,
        teacher: Teacher,
        record_losses: Callable[[Tensor], object] | None,
    ) -> Tensor:
        """Compute the sum and all gradients of rows `[N, H]`, or logits `[N, V]`, see `divergence_sum`."""
        # T² of the sum, 1/T of the logits.
        ctx.factor = teacher.temperature / terms.gradient_scale
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (rows, weight, bias)]
        gradients = allocate_gradients(rows, weight, bias, terms, ctx.needs_input_grad[:3])
        costs = divergences(rows, weight, bias, terms, teacher, gradients)
        if record_losses is not None:
            record_losses(costs.detach())
        ctx.save_for_backward(gradients.rows, gradients.weight, gradients.bias)
        return costs.sum()

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients of rows `[N, H]` or `[N, V]`, weight `[V, H]` and bias `[V]` by a scalar."""
        return (*scale_gradients(Gradients(*ctx.saved_tensors), grad * ctx.factor, ctx.dtypes), None, None, None)


def divergences(
    rows: Tensor, weight: Tensor | None, bias: Tensor | None, terms: Terms, teacher: Teacher, gradients: Gradients
) -> Tensor:
    """Compute the divergences `[N]`, times T², of all rows in the exact dtype, chunk by chunk in both models.

    The student has rows `[N, H]`, weight `[V, H]` and bias `[V]`, or logits `[N, V]`. `gradients` are filled without a
    factor T.
    """
    theirs = Chunks(
        teacher.rows, _as(teacher.head.weight, teacher.terms), _as(teacher.head.bias, teacher.terms), teacher.terms
    )

    def begin(part: slice) -> BlockCost:
        taught = theirs.logits(part, teacher.rows[part].to(teacher.terms.dtype), None)

        def cost(block: Tensor, _outer: slice, inner: slice, slope: Tensor | None) -> Tensor:
            other = theirs.block(taught[inner])
            apply_terms(other, teacher.terms, None)
            found = _compare(block, other.to(block.dtype), teacher, wanted=gradients.wanted)
            if gradients.wanted:
                if slope is not None:
                    block.mul_(slope)
                block.mul_(terms.scale * terms.gradient_scale)
            return found

        return cost

    return chunked(rows, weight, bias, terms, gradients, begin)


def _compare(student: Tensor, taught: Tensor, teacher: Teacher, *, wanted: bool) -> Tensor:
    """Divergences `[rows]` of a block of logits `[rows, V]`, times T²; the teacher's logits are overwritten.

    If needed, the student's logits are replaced by the gradient of D with respect to the logits divided by T.
    """
    beta, temperature = teacher.beta, teacher.temperature
    for logits in (student, taught):
        if temperature != 1.0:
            logits.div_(temperature)
        torch.ops.aten._log_softmax.out(logits, -1, False, out=logits)  # noqa: FBT003 - row by row, so in place
    if beta == 0.0:
        likely = taught.exp()
        costs = taught.sub_(student).mul_(likely).sum(1)
        if wanted:
            student.exp_().sub_(likely)
        return costs.mul_(temperature**2)
    of_teacher: Tensor | float = 0.0
    if beta == 1.0:
        share, mixture = 1.0, taught
    else:
        share, mixture = 1.0 - beta, torch.logaddexp(student + math.log1p(-beta), taught + math.log(beta))
        of_teacher = taught.exp().mul_(taught.sub_(mixture)).sum(1).mul_(beta)
    # The gradient of D is that for a constant m: the terms through m cancel, since m is the mixture of p and q.
    difference = torch.sub(student, mixture, out=mixture)
    student.exp_()
    of_student = (student * difference).sum(1)
    if wanted:
        student.mul_(difference.sub_(of_student[:, None])).mul_(share)
    return of_student.mul_(share).add_(of_teacher).mul_(temperature**2)


def _as(tensor: Tensor | None, terms: Terms) -> Tensor | None:
    return None if tensor is None else tensor.to(terms.dtype)


def _vocabulary(hidden: Tensor, head: Head) -> int:
    return hidden.shape[-1] if head.weight is None else head.weight.shape[0]


def _cut(hidden: Tensor, head: Head, size: int) -> tuple[Tensor, Head]:
    if _vocabulary(hidden, head) == size:
        return hidden, head
    if head.weight is None:
        return hidden[..., :size], head
    return hidden, replace(head, weight=head.weight[:size], bias=None if head.bias is None else head.bias[:size])
