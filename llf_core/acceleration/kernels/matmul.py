"""Matrix products for the shapes of a training step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# oneDNN gives all rows of a narrow bfloat16 product to one thread where there are so many of them; halves go to two.
NARROW = 1024
ROWS = 512
MANY_ROWS = 1280


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
    """Compute `a @ b`, plus a bias, or added to `onto`.

    Args:
        a: `[rows, inner]`.
        b: `[inner, columns]`.
        bias: `[columns]`, or None.
        onto: `[rows, columns]`, changed in place; or None.

    Returns:
        `[rows, columns]`.
    """
    rows, columns = a.shape[0], b.shape[1]
    if a.device.type != "cpu" or a.dtype != torch.bfloat16 or columns > NARROW or not ROWS < rows <= MANY_ROWS:
        return _product(a, b, bias, onto)
    result = onto if onto is not None else torch.empty(rows, columns, dtype=a.dtype)
    half = (rows + 1) // 2
    for start in range(0, rows, half):
        part = slice(start, start + half)
        if onto is not None:
            result[part].addmm_(a[part], b)
        elif bias is not None:
            torch.addmm(bias, a[part], b, out=result[part])
        else:
            torch.mm(a[part], b, out=result[part])
    return result


def _product(a: Tensor, b: Tensor, bias: Tensor | None, onto: Tensor | None) -> Tensor:
    if onto is not None:
        return onto.addmm_(a, b)
    return a @ b if bias is None else torch.addmm(bias, a, b)
