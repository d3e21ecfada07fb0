"""The running batch of an adapter: one step reads the last token of each row and chooses the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llf_core.chat.engine.failures import failure
from llf_core.chat.engine.kv_rows import rows_cache
from llf_core.chat.engine.token_choice import choose_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from transformers.cache_utils import Cache

    from llf_core.chat.engine.kv_rows import RowsLayer
    from llf_core.chat.engine.reply import Reply
    from llf_core.generation.checked_forward import CheckedForward


class RowBatch:
    """Replies that are generated together.

    Args:
        forward: forward passes of the model with its adapter active.
        layers: number of layers of the cache.
        device: device of the token embedding.

    Attributes:
        replies: one per row.
        cache: their keys and values, `[rows, heads, length, head_dim]` each per layer, padded on the left.
    """

    def __init__(self, forward: CheckedForward, layers: int, device: torch.device) -> None:
        self.replies: list[Reply] = []
        self.cache = rows_cache(layers)
        self._forward, self._device = forward, device
        self._lengths: list[int] = []  # tokens of each row in the cache

    def join(self, reply: Reply, cache: Cache) -> None:
        """Add a row whose prompt has been read and whose first token has been chosen, to generate the rest with others.

        Args:
            reply: the reply.
            cache: keys and values of its prompt, `[1, heads, length, head_dim]` each per layer.

        Raises:
            RuntimeError: out of memory; the rows are as before.
        """
        joined = []
        try:
            for layer, given in zip(self.cache.layers, cache.layers, strict=True):
                layer.join(given.keys, given.values)
                joined.append(layer)
        except Exception:
            self._remove(joined, len(self.replies))
            raise
        self.replies.append(reply)
        self._lengths.append(int(cache.layers[0].get_seq_length()))

    def step(self) -> None:
        """Generate one token of each reply by one forward pass, which costs little more than that of a single reply.

        There is at least one reply. One that fails alone ends with `Failed`.

        Raises:
            RuntimeError: out of memory; the rows are as before.
        """
        tokens = torch.tensor([one.tokens[-1] for one in self.replies], device=self._device)
        lengths = torch.tensor(self._lengths, device=self._device)
        try:
            logits = self._forward.step(tokens, lengths, self._mask(lengths), self.cache)
        except Exception:
            longest = max(self._lengths)
            for layer in self.cache.layers:
                layer.undo(longest)
            raise
        self._lengths = [one + 1 for one in self._lengths]
        accept_tokens(logits, self.replies)

    def ended(self) -> list[int]:
        """Indices of the rows whose replies have ended, highest first, the order in which `leave` takes them."""
        return [row for row in range(len(self.replies) - 1, -1, -1) if self.replies[row].done]

    def tokens_of(self, row: int) -> list[int]:
        """Token ids of a row in the cache, under which a later prompt finds its keys and values.

        Args:
            row: its index.

        Raises:
            IndexError: there is no such row.
        """
        reply = self.replies[row]
        return [*reply.prompt, *reply.tokens][: self._lengths[row]]

    def row(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """Copy the keys and values of a row, to keep them for later prompts.

        Args:
            row: its index.

        Returns:
            Keys and values of each layer, `[1, heads, length, head_dim]` each, without padding.

        Raises:
            RuntimeError: out of memory.
            IndexError: there is no such row.
        """
        return [layer.row(row, self._lengths[row]) for layer in self.cache.layers]

    def leave(self, row: int) -> None:
        """Remove a row whose reply has ended, so that steps no longer compute it; the last row takes its index.

        Args:
            row: its index.

        Raises:
            IndexError: there is no such row.
        """
        last = len(self.replies) - 1
        self.replies[row], self._lengths[row] = self.replies[last], self._lengths[last]
        del self.replies[last], self._lengths[last]
        self._remove(self.cache.layers, row)

    def _remove(self, layers: Iterable[RowsLayer], row: int) -> None:
        """Remove a row from layers, and the columns that only it needed: `_lengths` are those of the others."""
        longest = max(self._lengths, default=0)
        for layer in layers:
            layer.leave(row)
            if longest:
                layer.cut(longest)

    def _mask(self, lengths: Tensor) -> Tensor | None:
        longest = max(self._lengths)
        if min(self._lengths) == longest:
            return None
        columns = torch.arange(longest + 1, device=self._device)
        return columns >= longest - lengths[:, None]


def accept_tokens(logits: Tensor, replies: list[Reply]) -> None:
    """Choose the next token of each reply after a forward pass, and report it; one that fails does not end the others.

    Args:
        logits: `[batch, vocabulary]`.
        replies: one per row.
    """
    for row, chosen in enumerate(choose_tokens(logits, [one.chooser for one in replies])):
        reply = replies[row]
        if isinstance(chosen, Exception):
            reply.fail(*failure(chosen))
            continue
        try:
            reply.put(chosen, logits[row])
        except Exception as error:  # noqa: BLE001 - of one reply
            reply.fail(*failure(error))
