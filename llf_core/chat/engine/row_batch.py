"""The running batch of an adapter: one step generates a token of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llf_core.chat.engine.failures import failure
from llf_core.chat.engine.token_choice import choose_tokens
from llf_core.generation.kv_cache import RowsCache

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.cache_utils import Cache

    from llf_core.chat.engine.reply import Reply
    from llf_core.generation.checked_forward import CheckedForward


class RowBatch:
    """Replies that are generated together."""

    def __init__(self, forward: CheckedForward, layers: int, device: torch.device) -> None:
        self.replies: list[Reply] = []
        self.cache = RowsCache(layers, device)
        self._forward, self._device = forward, device

    def join(self, reply: Reply, cache: Cache) -> None:
        """Add a row whose prompt has been read into `cache` (one row), and whose first token has been chosen."""
        self.cache.join([(layer.keys, layer.values) for layer in cache.layers])
        self.replies.append(reply)

    def step(self) -> None:
        """Generate one token of each reply, at least one, by one forward pass. Replies fail one by one."""
        tokens = torch.tensor([one.tokens[-1] for one in self.replies], device=self._device)
        logits = self._forward.step(tokens, self.cache)
        accept_tokens(logits, self.replies)

    def ended(self) -> list[int]:
        """Indices of the rows whose replies have ended, highest first, as `leave` takes them."""
        return [row for row in range(len(self.replies) - 1, -1, -1) if self.replies[row].done]

    def tokens_of(self, row: int) -> list[int]:
        """Token ids of a row in the cache."""
        reply = self.replies[row]
        return [*reply.prompt, *reply.tokens][: self.cache.lengths[row]]

    def row(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """Copy the keys and values of a row, `[1, heads, length, head_dim]` each per layer, without padding."""
        return self.cache.row(row)

    def leave(self, row: int) -> None:
        """Remove a row; the last row takes its index."""
        self.replies[row] = self.replies[-1]
        del self.replies[-1]
        self.cache.leave(row)


def accept_tokens(logits: Tensor, replies: list[Reply]) -> None:
    """Choose the next token of each reply from logits `[batch, vocabulary]`, and report it; replies fail one by one."""
    for row, chosen in enumerate(choose_tokens(logits, [one.chooser for one in replies])):
        reply = replies[row]
        if isinstance(chosen, Exception):
            reply.fail(*failure(chosen))
            continue
        try:
            reply.put(chosen, logits[row])
        except Exception as error:  # noqa: BLE001 - of one reply
            reply.fail(*failure(error))
