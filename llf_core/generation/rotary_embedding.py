"""Rotary position embedding (RoPE, arXiv 2104.09864) as one small matrix per position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class RotaryMatrix:
    """Rotates queries and keys of a position by a matrix, `x @ R`: one product instead of five operations.

    Args:
        rotary: the model's rotary embedding, which computes `cos` and `sin`.
        turn: `[rotated, rotated]`; `x @ turn` is Llama's `rotate_half(x)`.
        head_dim: head size of queries and keys; dimensions beyond the rotated ones are unchanged.
    """

    def __init__(self, rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], turn: Tensor, head_dim: int) -> None:
        self._rotary, self._turn, self._head_dim = rotary, turn, head_dim

    def __call__(self, like: Tensor, positions: Tensor) -> Tensor:
        """Rotation matrices `[batch, head_dim, head_dim]` of positions `[batch]` (int64), in the dtype of `like`.

        Source:
            RoPE, arXiv 2104.09864, equation 15, with Llama's order of the dimensions.
        """
        cos, sin = self._rotary(like, positions[:, None])
        rotated: Tensor = torch.diag_embed(cos[:, 0]) + self._turn.to(sin) * sin
        rest: int = self._head_dim - rotated.shape[-1]
        if rest == 0:
            return rotated
        whole = torch.eye(self._head_dim, dtype=like.dtype, device=like.device).repeat(len(positions), 1, 1)
        whole[:, :-rest, :-rest] = rotated
        return whole

    @classmethod
    def read(cls, rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], head_dim: int) -> RotaryMatrix | None:
        """Convert a rotary embedding like Llama's; None if frequencies are missing, too many or depend on the length.

        Cosines and sines are still computed by the model's own embedding, which keeps its scaling of frequencies.
        """
        frequencies = getattr(rotary, "inv_freq", None)
        if frequencies is None or getattr(rotary, "rope_type", "default") in ("dynamic", "longrope"):
            return None
        size = 2 * len(frequencies)
        if size > head_dim:
            return None
        half = torch.eye(size // 2, device=frequencies.device)
        turn = torch.zeros(size, size, device=frequencies.device)
        turn[size // 2 :, : size // 2] = -half
        turn[: size // 2, size // 2 :] = half
        return cls(rotary, turn, head_dim)
