"""How far a student's next-token distributions are from its teacher's, without ever holding all logits.

As in `kernels.cross_entropy`: rows go through both heads in chunks, a chunk's logits become their gradient in
place, and the forward pass makes all gradients. Statistics are float32 (float64 for float64).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch.autograd import Function

from llf_core.acceleration.kernels.cross_entropy import Chunks, Gradients, Terms, apply_terms, chunked, factored, room
from llf_core.acceleration.kernels.token_loss import products_dtype

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
    note: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """`T² · Σ D(p ‖ q)`: sum of the generalised Jensen-Shannon divergences of q, the student's, from p, the teacher's.

    With `p = softmax(z_teacher / T)`, `q = softmax(z / T)` and `m = βp + (1 - β)q`:

    - `D = β KL(p ‖ m) + (1 - β) KL(q ‖ m)` for 0 < β < 1;
    - `D = KL(p ‖ q)` for β = 0, the usual distillation, in which the student covers all that its teacher may say;
    - `D = KL(q ‖ p)` for β = 1, in which it keeps to what its teacher finds likely.

    The ends are no limits of what is between them, which tends to 0. The factor T² keeps gradients alike over
    temperatures; TRL's GKD has none, so it differs where T is not 1. Where one of the two has more rows in its head,
    which are padding then, p and q are distributions over those that both have.

    Args:
        hidden: `[..., H]`, the student's hidden states; the logits `[..., V]` for a head without weight.
        head: the student's.
        teacher_hidden: `[..., K]`, of the same positions; no gradient flows to it or its head.
        teacher_head: the teacher's.
        learned_rows: `[N]`, int64: which positions count, as places in the flattened `[...]`.
        temperature: T, above 0: the larger, the more unlikely tokens count.
        beta: β, 0 to 1.
        note: called with `learned_rows` and what each of them costs, `[N]` without a graph; costs nothing.

    Returns:
        A float32 (float64 for float64) scalar with a graph; 0 where no row counts. Through a head that trains it can
        be walked backward once.

    Raises:
        ValueError: where a constant is out of its range.

    Source:
        GKD, arXiv 2306.13649, equation 1; T² as in arXiv 1503.02531, section 2.
    """
    common = min(_vocabulary(hidden, head), _vocabulary(teacher_hidden, teacher_head))
    hidden, head = _cut(hidden, head, common)
    teacher_hidden, teacher_head = _cut(teacher_hidden, teacher_head, common)
    if not (temperature > 0.0 and 0.0 <= beta <= 1.0):
        raise ValueError(
            f"Distillation takes a temperature above 0 and a beta from 0 to 1, and got {temperature} and {beta}."
        )
    rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, learned_rows)
    taught = teacher_hidden.reshape(-1, teacher_hidden.shape[-1]).index_select(0, learned_rows)
    terms = Terms(head.scale, head.softcap, 0.0, products_dtype(rows, head))
    teacher_terms = Terms(teacher_head.scale, teacher_head.softcap, 0.0, products_dtype(taught, teacher_head))
    teacher = Teacher(taught, teacher_head, teacher_terms, temperature, beta)
    if torch.is_grad_enabled():
        heard = None if note is None else partial(note, learned_rows)
        result: Tensor = Divergence.apply(rows, head.weight, head.bias, terms, teacher, heard)  # type: ignore[no-untyped-call]
        return result
    costs = divergences(rows, head.weight, head.bias, terms, teacher, Gradients(None, None, None))
    if note is not None:
        note(learned_rows, costs)
    return costs.sum()


@dataclass(frozen=True, eq=False)
class Teacher:
    """What a student is compared with, and how.

    Attributes:
        rows: `[N, K]`, of the positions that count; the logits `[N, V]` for a head without weight.
        head: the teacher's.
        terms: of the teacher's logits.
        temperature: T.
        beta: β.
    """

    rows: Tensor
    head: Head
    terms: Terms
    temperature: float
    beta: float


class Divergence(Function):
    """The sum over rows; the forward pass makes all gradients, the backward pass only multiplies."""

    @staticmethod
    def forward(
        ctx: _Context,
        rows: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        terms: Terms,
        teacher: Teacher,
        note: Callable[[Tensor], object] | None,
    ) -> Tensor:
        """See the class."""
        # T² of the sum, 1/T of the logits.
        ctx.factor = teacher.temperature / terms.lift
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (rows, weight, bias)]
        gradients = room(rows, weight, bias, terms, ctx.needs_input_grad[:3])
        costs = divergences(rows, weight, bias, terms, teacher, gradients)
        if note is not None:
            note(costs.detach())
        ctx.save_for_backward(gradients.rows, gradients.weight, gradients.bias)
        return costs.sum()

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        """See the class."""
        return (*factored(Gradients(*ctx.saved_tensors), grad * ctx.factor, ctx.dtypes), None, None, None)


def divergences(
    rows: Tensor, weight: Tensor | None, bias: Tensor | None, terms: Terms, teacher: Teacher, gradients: Gradients
) -> Tensor:
    """Divergences of all rows, chunk by chunk; fills `gradients`.

    Args:
        rows: `[N, H]`, the student's, or its logits `[N, V]` where there is no weight.
        weight: `[V, H]`.
        bias: `[V]`.
        terms: of the student's logits.
        teacher: what they are compared with.
        gradients: buffers for what is wanted, see `kernels.cross_entropy.room`. What they hold lacks a factor T.

    Returns:
        `[N]` in the exact dtype.
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
                block.mul_(terms.scale * terms.lift)
            return found

        return cost

    return chunked(rows, weight, bias, terms, gradients, begin)


def _compare(student: Tensor, taught: Tensor, teacher: Teacher, *, wanted: bool) -> Tensor:
    """Divergences of a block; the student's logits become their gradient in place where it is wanted.

    Args:
        student: `[rows, V]`, logits.
        taught: `[rows, V]`, the teacher's logits; overwritten.
        teacher: has temperature and β.
        wanted: whether a gradient is.

    Returns:
        `[rows]`, times T². The gradient is that of D by the logits over T.
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
    # D changes with q as if m stood still: what m gives to both sums cancels out, since p and q mix to m.
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
    """A head of so many tokens."""
    if _vocabulary(hidden, head) == size:
        return hidden, head
    if head.weight is None:
        return hidden[..., :size], head
    return hidden, replace(head, weight=head.weight[:size], bias=None if head.bias is None else head.bias[:size])
