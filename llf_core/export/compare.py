"""Compares what another program computes with an export to the live model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llf_core.export.receipt import ReceiptCheck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from llf_core.export.receipt import PlainResult
    from llf_core.export.reference import Reference

ROUNDING = 1e-6
"""Relative rounding error of a float32 logit."""
LOGIT_LIMITS = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference of a logit between two programs, by the dtype in which both compute.

A share of the standard deviation of the live model's logits. Sums in another order differ by about 1e-5 in float32.
"""
LOSSY = "The export is an approximation: its loss is measured and has no limit."
KL_LIMITS = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}
"""Largest mean KL divergence in nats from the live model, by the dtype of the written weights."""


def compare_all(  # noqa: PLR0913 - what the limits depend on
    reference: Reference,
    found: PlainResult,
    *,
    compute_dtype: str,
    dtype: str,
    written: Sequence[Tensor] | None = None,
    lossy: bool = False,
) -> list[ReceiptCheck]:
    """All checks of an export that transformers loads; the first alone if it could not be loaded or lacks weights.

    Args:
        compute_dtype: dtype in which both computed: `float32`, `bfloat16` or `float16`.
        written: logits of the live model after it was rounded to `dtype`, of the shapes of `Reference.logits`; None if
            it was not changed. The export's logits are compared with them, its KL divergence is from `reference`.
        lossy: whether the export is an approximation: KL divergence and answers are measured without a limit.
    """
    checks = [_load_check(found)]
    if not checks[0].passed:
        return checks
    checks += _compare_text(reference, found)
    checks.append(
        logits_check(
            reference.logits if written is None else written, found.logits, LOGIT_LIMITS[compute_dtype], found.by
        )
    )
    limit = max(KL_LIMITS[compute_dtype], KL_LIMITS[dtype])
    loss, answers = kl_check(reference.logits, found.logits, limit, found.by), answers_check(reference, found)
    if lossy:
        answers = replace(answers, passed=True, limit=None, detail=LOSSY)
        if isinstance(loss.measured, float):  # else the logits are of other positions
            loss = replace(loss, passed=True, limit=None, detail=LOSSY)
    return [*checks, loss, answers]


def compare_scores(
    reference: Reference,
    found: PlainResult,
    *,
    compute_dtype: str,
    dtype: str,
    written: Sequence[Tensor] | None = None,
) -> list[ReceiptCheck]:
    """All checks of a reward model, as `compare_all`, on scores `[1, 1]`; those of a single conversation fail."""
    checks = [_load_check(found)]
    if not checks[0].passed:
        return checks
    checks += _compare_text(reference, found)[:3]  # a classifier ends no answer
    exact = reference.logits if written is None else written
    scores = logits_check(exact, found.logits, LOGIT_LIMITS[compute_dtype], found.by)
    share = max(LOGIT_LIMITS[compute_dtype], LOGIT_LIMITS[dtype])
    rounding = logits_check(reference.logits, found.logits, share, found.by)
    return [*checks, replace(scores, name="scores"), replace(rounding, name="rounding")]


def _load_check(found: PlainResult) -> ReceiptCheck:
    loaded = not found.error and not found.missing
    lacking = f"{len(found.missing)} weights are missing, the first is {found.missing[0]}." if found.missing else ""
    measured = "loaded" if loaded else "failed"
    return ReceiptCheck("load", loaded, measured, by=found.by, detail=found.error or lacking)


def _compare_text(reference: Reference, found: PlainResult) -> list[ReceiptCheck]:
    same = reference.template == found.template
    checks = [
        ReceiptCheck("chat template", same, "equal" if same else "differs", by=found.by),
        _same("rendering", reference.rendered if reference.template else [], found.rendered, found.by, "conversation"),
        _same("tokenizer", reference.tokens, found.tokens, found.by, "text"),
    ]
    lacking = sorted({*reference.stops} - {*found.stops})
    more = sorted({*found.stops} - {*reference.stops})
    detail = " ".join(f"{what} token ids: {ids}." for what, ids in (("Missing", lacking), ("Further", more)) if ids)
    shown = str(found.stops).strip("[]") or "none"
    return [*checks, ReceiptCheck("stop tokens", not detail, shown, by=found.by, detail=detail)]


def logits_check(expected: Sequence[Tensor], found: Sequence[Tensor], share: float, by: str) -> ReceiptCheck:
    """Compare logits at each position by their largest difference, which is infinite where a logit is not finite.

    It fails too if a prompt has another number of positions, or `expected` is a single value, without a standard
    deviation.

    Args:
        expected: logits for each prompt `[N, V]`, float32: N positions, V tokens.
        found: the same of another program; columns that only one side has, as padding of the vocabulary, are ignored.
        share: limit as a share of the standard deviation of all values of `expected`.
    """
    import torch

    spread = float(torch.cat([one.flatten() for one in expected]).std())
    apart = 0.0
    for one, other in zip(expected, found, strict=True):
        width = min(one.shape[-1], other.shape[-1])
        if one.shape[0] != other.shape[0]:
            detail = f"{one.shape[0]} positions were expected, {other.shape[0]} computed."
            return ReceiptCheck("logits", passed=False, measured="other shape", by=by, detail=detail)
        differences = (one[:, :width] - other[:, :width]).abs()
        apart = max(apart, float(torch.nan_to_num(differences, nan=torch.inf, posinf=torch.inf).max()))
    return ReceiptCheck("logits", apart <= share * spread, apart, share * spread, by=by)


def mean_kl(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Mean KL(live ‖ written) in nats over all positions; 0 without any, infinite or NaN if a logit is not finite.

    Args:
        expected: logits of the live model, for each prompt `[N, V]`: N positions, V tokens.
        found: the same of what was written. Columns that only one side has, as padding of the vocabulary, are ignored.
    """
    import torch

    total, count = 0.0, 0
    for one, other in zip(expected, found, strict=True):
        width = min(one.shape[-1], other.shape[-1])
        live = torch.log_softmax(one[:, :width].double(), -1)
        made = torch.log_softmax(other[:, :width].double(), -1)
        total += float((live.exp() * (live - made)).sum())
        count += one.shape[0]
    return total / max(1, count)


def kl_check(expected: Sequence[Tensor], found: Sequence[Tensor], limit: float, by: str) -> ReceiptCheck:
    """Compare the distributions of the next token by `mean_kl`, up to `limit` nats.

    It fails too if a prompt has another number of positions, or a logit is not finite. Logits are `[N, V]` for each
    prompt; `by` is the program and version that computed `found`.
    """
    if any(one.shape[0] != other.shape[0] for one, other in zip(expected, found, strict=True)):
        return ReceiptCheck("KL divergence", passed=False, measured="other shape", limit=limit, unit="nats", by=by)
    measured = mean_kl(expected, found)
    return ReceiptCheck("KL divergence", measured <= limit, measured, limit, "nats", by)


def changed_tokens(reference: Reference, found: Sequence[Tensor]) -> float:
    """Share of the live model's answer tokens, 0 to 1, that another program would not choose after the same tokens.

    Tokens before the N positions of its logits `[N, V]` for each prompt are not counted.
    """
    changed, total = 0, 0
    for answer, logits in zip(reference.answers, found, strict=True):
        rows = logits[-1 - len(answer) : -1]
        tokens = answer[len(answer) - rows.shape[0] :]
        changed += sum(int(row.argmax()) != token for row, token in zip(rows, tokens, strict=True))
        total += len(tokens)
    return changed / max(1, total)


def answers_check(reference: Reference, found: PlainResult) -> ReceiptCheck:
    """Compare greedy answers, which may differ by rounding where two tokens are almost equally likely.

    An answer may differ if, at its first other token, the live model prefers its own by no more than twice the largest
    difference of a logit there. An answer that only ends earlier or later never passes.
    """
    changed, unexplained = 0, 0
    for number, (answer, other) in enumerate(zip(reference.answers, found.answers, strict=True)):
        at = next((i for i, pair in enumerate(zip(answer, other, strict=False)) if pair[0] != pair[1]), None)
        if at is None and len(answer) == len(other):
            continue
        changed += 1
        if at is None or not _is_tie(reference.logits[number], found.logits[number], answer, at, other[at]):
            unexplained += 1
    total = len(reference.answers)
    detail = f"{changed} of {total} answers differ, {unexplained} of them by more than rounding." if changed else ""
    measured = f"{total - changed} of {total} equal"
    return ReceiptCheck("greedy answers", not unexplained, measured, by=found.by, detail=detail)


def _is_tie(live: Tensor, made: Tensor, answer: Sequence[int], at: int, token: int) -> bool:
    """Whether the margin between two tokens of the live model is within the error of what was written.

    The row of logits `[N, V]` before a token predicts it; `at` is the index of the first other token.
    """
    row = live.shape[0] - 1 - len(answer) + at
    if row < 0 or live.shape[0] != made.shape[0] or token >= live.shape[1]:
        return False
    width = min(live.shape[-1], made.shape[-1])
    margin = float(live[row, answer[at]] - live[row, token])
    apart = float((live[row, :width] - made[row, :width]).abs().max())
    return margin <= 2 * apart + ROUNDING * float(live[row].abs().max())


def _same(name: str, expected: Sequence[object], found: Sequence[object], by: str, what: str) -> ReceiptCheck:
    apart = [number for number, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]]
    equal = not apart and len(expected) == len(found)
    measured = f"{len(expected) - len(apart)} of {len(expected)} {what}s equal"
    detail = f"The first that differs: {_first(expected[apart[0]], found[apart[0]])}" if apart else ""
    return ReceiptCheck(name, equal, measured, by=by, detail=detail)


def _first(expected: object, found: object) -> str:
    return f"expected {str(expected)[:80]!r}, found {str(found)[:80]!r}."
