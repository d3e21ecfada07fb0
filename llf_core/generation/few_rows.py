"""Products of a few rows with a bfloat16 weight on a CPU: oneDNN computes them faster with the weight on the left."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from llf_core.models.checksums import is_plain_linear

if TYPE_CHECKING:
    from torch import Tensor, nn

TILE = 8
"""Number of rows of a product in 16 bits whose rows are computed in one way, however few of them are used. A product
of another shape may add up in another order, which bfloat16 makes visible. `F.linear` of 8 rows takes no longer than
`torch.mv` of one."""
MAX_ROWS = 16
"""Largest number of rows for which `few_rows_linear` reorders the product: with 2 to 16 rows it took 0.5 to 0.75 of
the time of `F.linear` (weights of Llamas from 135 M to 1 B, AMX). A prompt of 40 tokens is read slower, since the
next operations read rows that are not contiguous (`benchmarks/chat.py`: first token 1.2 in place of 1.0)."""


def few_rows_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, max_rows: int = MAX_ROWS) -> Tensor:
    """Compute `x Wᵀ + b` as `(W xᵀ)ᵀ + b` where that is faster, as in decoding a batch; `F.linear` elsewhere.

    Args:
        x: `[..., in]`.
        weight: `[out, in]`, of the dtype of `x`.

    Returns:
        `[..., out]`; its rows may not be contiguous.
    """
    rows = x.numel() // max(x.shape[-1], 1)
    if (
        x.dtype != torch.bfloat16
        or weight.dtype != x.dtype
        or x.device.type != "cpu"
        or not _least() <= rows <= max_rows
    ):
        return F.linear(x, weight, bias)
    y = torch.mm(weight, x.reshape(rows, -1).t()).t()
    return (y if bias is None else y + bias).view(*x.shape[:-1], len(weight))


@cache
def _least() -> int:
    """Smallest number of reordered rows: without AMX, `F.linear` took 0.5 to 0.9 of the time of 2 to 8 rows."""
    return 2 if torch.cpu._is_amx_tile_supported() else TILE + 1  # noqa: SLF001 - torch has no public name


def speed_up_few_rows(model: nn.Module) -> int:
    """Let the bfloat16 linear layers of a model on a CPU, also if PEFT wraps them later, use `few_rows_linear`."""
    changed = 0
    for module in model.modules():
        if is_plain_linear(module) and module.weight.dtype == torch.bfloat16 and module.weight.device.type == "cpu":
            module.forward = partial(_forward, module)  # type: ignore[method-assign]
            changed += 1
    return changed


def _forward(module: nn.Linear, x: Tensor) -> Tensor:
    return few_rows_linear(x, module.weight, module.bias)
