"""Rotary position embedding as one small matrix a position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Rotation:
    """Matrices that turn queries and keys of one position by `x @ R`: one product instead of five operations.

    Args:
        rotary: the model's own rotary embedding, which gives `cos` and `sin`.
        turn: `[rotated, rotated]`: `x @ turn` is Llama's `rotate_half(x)`.
        head_dim: of queries and keys; dimensions after the rotated ones are left as they are.
    """

    def __init__(self, rotary: Any, turn: Tensor, head_dim: int) -> None:
        self._rotary, self._turn, self._head_dim = rotary, turn, head_dim

    def __call__(self, like: Tensor, positions: Tensor) -> Tensor:
        """Of `positions` `[batch]`, in the dtype of `like`: `[batch, head_dim, head_dim]`."""
        cos, sin = self._rotary(like, positions[:, None])
        rotated: Tensor = torch.diag_embed(cos[:, 0]) + self._turn.to(sin) * sin
        rest: int = self._head_dim - rotated.shape[-1]
        if rest == 0:
            return rotated
        whole = torch.eye(self._head_dim, dtype=like.dtype, device=like.device).repeat(len(positions), 1, 1)
        whole[:, :-rest, :-rest] = rotated
        return whole

    @classmethod
    def read(cls, rotary: Any, head_dim: int) -> Rotation | None:
        """A rotary embedding of Llama's kind; None for one that changes with the length of the text."""
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
