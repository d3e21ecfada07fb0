"""Key-value cache of a running batch: rows join and leave it, and all of them end at the same column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor

MIN_ROOM = 64


class RowsLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """Keys and values of one layer in slots: views of buffers `[slots, heads, room, head_dim]`, padded on the left.

    A row that joins or leaves moves only its own positions, except where a buffer has to grow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows = self._start = self._end = 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self._buffers: tuple[Tensor, Tensor] | None = None

    def join(self, keys: Tensor, values: Tensor) -> None:
        """Add a row, so that its reply is generated together with the others.

        Args:
            keys: `[1, heads, length, head_dim]`.
            values: `[1, heads, length, head_dim]`.

        Raises:
            RuntimeError: out of memory.
        """
        new = keys.shape[-2]
        longest = max(new, self._end - self._start)
        buffers = self._buffers
        if buffers is None or self.rows == len(buffers[0]) or self._end < longest:
            slots = self.rows + 1 if self.rows < 2 else 2 * self.rows  # noqa: PLR2004 - two rows need no spare slot
            buffers = self._resize(slots, longest, keys, values)
        first = self._end - longest
        for buffer, given in zip(buffers, (keys, values), strict=True):
            buffer[: self.rows, :, first : self._start] = 0  # a NaN that a former row left would spread
            buffer[self.rows, :, first : self._end - new] = 0
            buffer[self.rows, :, self._end - new : self._end] = given[0]
        self._start = first
        self.rows += 1
        self._view()

    def row(self, row: int, length: int) -> tuple[Tensor, Tensor]:
        """Copy the keys and values of a row, `[1, heads, length, head_dim]` each, since other rows reuse the buffers.

        Args:
            row: its index.
            length: number of its tokens, without padding.

        Raises:
            RuntimeError: out of memory.
        """
        assert self._buffers is not None  # noqa: S101 - there are rows
        keys, values = (one[row : row + 1, :, self._end - length : self._end].clone() for one in self._buffers)
        return keys, values

    def leave(self, row: int) -> None:
        """Remove a row; the last row takes its index, so that only one row moves.

        Args:
            row: its index.
        """
        assert self._buffers is not None  # noqa: S101 - there are rows
        self.rows -= 1
        if self.rows == 0:
            self.reset()
            return
        if row != self.rows:
            for buffer in self._buffers:
                buffer[row, :, self._start : self._end] = buffer[self.rows, :, self._start : self._end]
        self._view()

    def cut(self, length: int) -> None:
        """Remove leading columns that are padding in all rows, so that attention does not read them.

        Args:
            length: number of columns to keep, the last ones.
        """
        self._start = max(self._start, self._end - length)
        self._view()

    def undo(self, length: int) -> None:
        """Remove the columns of a step that failed in a later layer, so that the step can be repeated.

        Args:
            length: number of columns before the step.
        """
        self._end = min(self._end, self._start + length)
        self._view()

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append positions to each row, in place while the buffer has room, as models call it in each layer.

        Args:
            key_states: new keys `[rows, heads, new, head_dim]`.
            value_states: new values `[rows, heads, new, head_dim]`.
            *_: not used.
            **__: not used.

        Returns:
            All keys and values, `[rows, heads, length, head_dim]` each.

        Raises:
            RuntimeError: out of memory.
        """
        new = key_states.shape[-2]
        buffers = self._buffers
        assert buffers is not None  # noqa: S101 - a batch begins with `join`
        if self._end + new > buffers[0].shape[-2]:
            buffers = self._resize(len(buffers[0]), self._end - self._start + new, key_states, value_states)
        end = self._end + new
        buffers[0][: self.rows, :, self._end : end] = key_states
        buffers[1][: self.rows, :, self._end : end] = value_states
        self._end = end
        return self._view()

    def reset(self) -> None:
        """Remove all rows and free the buffers, once the last row has left."""
        self.rows = self._start = self._end = 0
        self._buffers = None
        super().reset()

    def _view(self) -> tuple[Tensor, Tensor]:
        assert self._buffers is not None  # noqa: S101 - called with rows only
        columns = slice(self._start, self._end)
        self.keys = self._buffers[0][: self.rows, :, columns]
        self.values = self._buffers[1][: self.rows, :, columns]
        return self.keys, self.values

    def _resize(self, slots: int, length: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows to new buffers, in which `length` columns have room before or at the end and as many follow."""
        held = self._end - self._start
        room = length + max(length, MIN_ROOM)
        found = []
        for like, old in zip((keys, values), self._buffers or (None, None), strict=True):
            buffer = like.new_zeros(slots, like.shape[1], room, like.shape[-1])
            if old is not None:
                buffer[: self.rows, :, length - held : length] = old[: self.rows, :, self._start : self._end]
            found.append(buffer)
        self._start, self._end = length - held, length
        self._buffers = (found[0], found[1])
        self.is_initialized, self.device = True, keys.device
        return self._buffers


def rows_cache(layers: int) -> Cache:
    """Create an empty cache of `RowsLayer`, in transformers' type, so that models accept it.

    Args:
        layers: number of layers.
    """
    return Cache(layers=[RowsLayer() for _ in range(layers)])
