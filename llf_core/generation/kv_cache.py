"""Keys and values of past tokens, in buffers that are written in place and kept between turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 64


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """A `DynamicLayer` whose `keys` and `values` are the filled parts of larger buffers.

    A step writes one position instead of copying all earlier ones; a full buffer doubles.

    Args:
        room: positions that the first buffer holds.
    """

    def __init__(self, room: int = SMALLEST) -> None:
        super().__init__()
        self.room = room
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Appends `[batch, heads, new, head_dim]` of each and returns all: `[batch, heads, length, head_dim]`."""
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

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows of the batch only."""
        if self._keys is not None and self._values is not None:
            length = self.get_seq_length()
            self._keys, self._values = self._keys[indices], self._values[indices]
            self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]

    def reset(self) -> None:
        """Forgets all positions."""
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
    """A cache of `layers` layers for `room` positions at first."""
    return Cache(layers=[GrowingLayer(room) for _ in range(layers)])


def forget(cache: Cache, length: int) -> None:
    """Keeps the first `length` positions of a cache of growing layers."""
    for layer in cache.layers:
        if layer.get_seq_length() > length:
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]


def keep_rows(cache: Cache, rows: Tensor) -> None:
    """Keeps these rows of the batch, `[kept]` of int64."""
    for layer in cache.layers:
        layer.batch_select_indices(rows)
