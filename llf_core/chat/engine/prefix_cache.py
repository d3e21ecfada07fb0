"""Keys and values of earlier prompts and replies, for prompts with a common prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.data.common_prefix import common_prefix_length

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prefix:
    """Token ids, and their keys and values of each layer, `[1, heads, length, head_dim]` each."""

    adapter: str | None
    tokens: list[int]
    layers: list[tuple[Tensor, Tensor]]

    @property
    def nbytes(self) -> int:
        """Bytes of the storage behind the keys and values, of which they may be views."""
        return sum(keys.untyped_storage().nbytes() + values.untyped_storage().nbytes() for keys, values in self.layers)


class PrefixCache:
    """Keeps the most recently used prefixes, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: list[Prefix] = []  # the one that was used last is at the end

    @property
    def nbytes(self) -> int:
        """Bytes of all prefixes."""
        return sum(one.nbytes for one in self._kept)

    def longest(self, adapter: str | None, tokens: list[int]) -> tuple[Prefix | None, int]:
        """The prefix with the most tokens in common with a prompt, now used, and their number; else None and 0."""
        best, most = None, 0
        for one in self._kept:
            if one.adapter == adapter and (length := common_prefix_length(one.tokens, tokens)) > most:
                best, most = one, length
        if best is not None:
            self._kept.remove(best)
            self._kept.append(best)
        return best, most

    def keep(self, prefix: Prefix) -> None:
        """Add a prefix in place of those that it continues, and of those unused for the longest time.

        It is left out if it is empty or larger than the limit, or another one of its adapter begins with its tokens.
        """
        size = len(prefix.tokens)
        if (
            size == 0
            or prefix.nbytes > self.limit
            or any(one.adapter == prefix.adapter and one.tokens[:size] == prefix.tokens for one in self._kept)
        ):
            return
        self._kept = [
            one for one in self._kept if one.adapter != prefix.adapter or one.tokens != prefix.tokens[: len(one.tokens)]
        ]
        self._kept.append(prefix)
        self.shrink(self.limit)

    def shrink(self, limit: int) -> None:
        """Remove prefixes, the longest unused first, down to a number of bytes."""
        left = self.nbytes
        while self._kept and left > limit:
            left -= self._kept.pop(0).nbytes

    def forget(self, adapter: str | None) -> None:
        """Remove the prefixes of an adapter; None for the base model."""
        self._kept = [one for one in self._kept if one.adapter != adapter]
