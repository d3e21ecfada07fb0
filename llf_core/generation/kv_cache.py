"""Key-value cache with preallocated buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor

MIN_ROOM = 64


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """A `DynamicLayer` whose `keys` and `values` `[batch, heads, length, head_dim]` are views of larger buffers.

    A step writes one position instead of copying all earlier ones; a full buffer doubles its size.
    """

    def __init__(self, room: int = MIN_ROOM) -> None:
        super().__init__()
        self.room = room
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append keys and values `[batch, heads, new, head_dim]`; returns all, `[batch, heads, length, head_dim]`."""
        past = self.get_seq_length()
        length = past + key_states.shape[-2]
        if self._keys is None or self._values is None or length > self._keys.shape[-2]:
            room = max(self.room, length if past == 0 else 2 * length)
            self._keys = self._buffer(key_states, room, self.keys if past else None)
            self._values = self._buffer(value_states, room, self.values if past else None)
            self.is_initialized, self.device = True, key_states.device
        self._keys[:, :, past:length].copy_(key_states)
        self._values[:, :, past:length].copy_(value_states)
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]
        return self.keys, self.values

    def reset(self) -> None:
        """Remove all positions and rows, and free the buffers."""
        self._keys = self._values = None
        super().reset()

    @staticmethod
    def _buffer(like: Tensor, room: int, filled: Tensor | None) -> Tensor:
        batch, heads, _, head_dim = like.shape
        buffer = like.new_zeros(batch, heads, room, head_dim)
        if filled is not None:
            buffer[:, :, : filled.shape[-2]].copy_(filled)
        return buffer


def growing_cache(layers: int, room: int) -> Cache:
    """Create a transformers cache of growing layers."""
    return Cache(layers=[GrowingLayer(room) for _ in range(layers)])
