"""Key-value caches with preallocated buffers: of one batch of prompts, and of running rows of several lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MIN_ROOM = 64
ROUND = 16
"""Reserved room is a multiple of it, so that a step that reads a multiple of 16 columns fits."""


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


class RowsLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """Keys and values of one layer: views of buffers `[slots, heads, room, head_dim]`, 0 behind the tokens of a row."""

    def __init__(self, cache: RowsCache) -> None:
        super().__init__()
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self._cache = cache
        self._buffers: tuple[Tensor, Tensor] | None = None

    def put(self, row: int, keys: Tensor, values: Tensor) -> None:
        """Put the keys and values `[1, heads, length, head_dim]` of a prompt into a free slot."""
        length = keys.shape[-2]
        found = self._buffers
        slots = 0 if found is None else len(found[0])
        room = 0 if found is None else found[0].shape[-2]
        if row == slots or length >= room:
            needed = row + 1 if row < 2 else 2 * row  # noqa: PLR2004 - two rows need no spare slot
            longest = max(length, self.get_seq_length())
            self._resize(needed if row == slots else slots, longest + 1, keys, values)
        for buffer, given in zip(self._buffers or (), (keys, values), strict=True):
            buffer[row, :, :length] = given[0]
            buffer[row, :, length:] = 0  # a NaN that a former row left would spread

    def row(self, row: int) -> tuple[Tensor, Tensor]:
        """Copy the keys and values of a row, `[1, heads, length, head_dim]` each."""
        length = self._cache.lengths[row]
        keys, values = (one[row : row + 1, :, :length].clone() for one in self._buffers or ())
        return keys, values

    def leave(self, row: int, last: int) -> None:
        """Remove a row; the last one takes its place."""
        if last == 0:
            self.reset()
        elif row != last:
            for buffer in self._buffers or ():
                buffer[row] = buffer[last]

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the next column `[rows, heads, 1, head_dim]`; all columns, `[rows, heads, width, head_dim]`."""
        rows, columns, width = len(key_states), self._cache.columns, self._cache.width
        if self._buffers is None or width > self._buffers[0].shape[-2]:
            self._resize(rows if self._buffers is None else len(self._buffers[0]), width, key_states, value_states)
        assert self._buffers is not None  # noqa: S101 - made above
        for buffer, given in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[self._cache.numbers, :, columns] = given[:, :, 0]
        self.keys, self.values = (buffer[:rows, :, :width] for buffer in self._buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Number of tokens of the longest row."""
        return max(self._cache.lengths, default=0)

    def reset(self) -> None:
        """Free the buffers."""
        self._buffers = None
        super().reset()

    def _resize(self, slots: int, length: int, keys: Tensor, values: Tensor) -> None:
        """Move the rows to buffers of twice this length, or of the reserved size."""
        old_keys, old_values = self._buffers or (None, None)
        least, most = self._cache.reserved
        slots, room = max(slots, least), length + max(length, MIN_ROOM) if length > most else most
        grown = []
        for like, old in ((keys, old_keys), (values, old_values)):
            buffer = like.new_zeros(slots, like.shape[1], room, like.shape[-1])
            if old is not None:
                buffer[: len(old), :, : old.shape[-2]] = old[..., :room, :]
            grown.append(buffer)
        self._buffers = (grown[0], grown[1])
        self.is_initialized, self.device = True, keys.device


class RowsCache(Cache):  # type: ignore[misc]  # transformers ships no types
    """A transformers cache of `RowsLayer`.

    Attributes:
        lengths: number of tokens of each row.
        numbers: indices of the rows in a step, `[rows]`.
        columns: column that a step writes in each row, `[rows]`.
        width: number of columns that a step reads.
        reserved: rows and columns of the first buffers.
    """

    def __init__(self, layers: int, device: torch.device) -> None:
        super().__init__(layers=[RowsLayer(self) for _ in range(layers)])
        self.lengths: list[int] = []
        self.numbers = self.columns = torch.zeros(0, dtype=torch.long, device=device)
        self.width = 0
        self.reserved = (0, 0)

    def reserve(self, rows: int, room: int) -> None:
        """Set the number of rows and columns of the first buffers."""
        self.reserved = (rows, -(-room // ROUND) * ROUND)

    def join(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Add a row with keys and values `[1, heads, length, head_dim]` per layer; no row changes if it fails."""
        for layer, given in zip(self.layers, layers, strict=True):
            layer.put(len(self.lengths), *given)
        self.lengths.append(layers[0][0].shape[-2])

    def take(self, cache: Cache, lengths: Sequence[int]) -> None:
        """Add the rows of another cache, which is padded on the left and is emptied to free memory."""
        for layer, given in zip(self.layers, cache.layers, strict=True):
            for row, length in enumerate(lengths, len(self.lengths)):
                own = slice(row, row + 1), slice(None), slice(given.keys.shape[-2] - length, None)
                layer.put(row, given.keys[own], given.values[own])
            given.reset()
        self.lengths += lengths

    def leave(self, row: int) -> None:
        """Remove a row; the last one takes its index."""
        last = len(self.lengths) - 1
        for layer in self.layers:
            layer.leave(row, last)
        self.lengths[row] = self.lengths[last]
        del self.lengths[last]

    def row(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """Copies of the keys and values of a row in each layer, `[1, heads, length, head_dim]` each."""
        return [layer.row(row) for layer in self.layers]

    def begin(self, multiple: int = 1) -> None:
        """Begin a step, which writes one column of each row and reads a multiple of `multiple` columns.

        A step that fails changes nothing that is read: only `end` counts its tokens.
        """
        device = self.columns.device
        self.columns = torch.tensor(self.lengths, device=device)
        self.numbers = torch.arange(len(self.lengths), device=device)
        self.width = -(-(max(self.lengths) + 1) // multiple) * multiple

    def end(self) -> None:
        """Count the token that a step has read in each row."""
        self.lengths = [one + 1 for one in self.lengths]

    def mask(self) -> Tensor | None:
        """True at the tokens of a step's rows, false behind them, `[rows, width]`; None if all are true."""
        if min(self.lengths) + 1 == self.width:
            return None
        return torch.arange(self.width, device=self.columns.device) <= self.columns[:, None]
