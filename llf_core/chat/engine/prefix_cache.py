"""Keys and values of earlier prompts and replies, for prompts that begin with the same tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.data.common_prefix import common_prefix_length

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of a text.

    Attributes:
        adapter: name of the adapter that computed them; None for the base model.
        tokens: token ids.
        layers: keys and values of each layer, `[1, heads, length, head_dim]` each.
    """

    adapter: str | None
    tokens: list[int]
    layers: list[tuple[Tensor, Tensor]]

    @property
    def nbytes(self) -> int:
        """Bytes of the memory behind the keys and values, which may be more than the views of it show."""
        return sum(keys.untyped_storage().nbytes() + values.untyped_storage().nbytes() for keys, values in self.layers)


class PrefixCache:
    """Keeps the prefixes that were used last, up to a number of bytes.

    Args:
        limit: maximum number of bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: list[Prefix] = []  # the one that was used last is at the end

    @property
    def nbytes(self) -> int:
        """Bytes of all prefixes, which the limit bounds."""
        return sum(one.nbytes for one in self._kept)

    def longest(self, adapter: str | None, tokens: list[int]) -> tuple[Prefix | None, int]:
        """Find the prefix that has the most tokens in common with a prompt, so that they need not be read again.

        Args:
            tokens: token ids of the prompt that may be taken from the cache.

        Returns:
            The prefix, with keys and values `[1, heads, length, head_dim]` of each layer, and the number of common
            tokens; None and 0 if there is none. It counts as used now.
        """
        best, most = None, 0
        for one in self._kept:
            if one.adapter == adapter and (length := common_prefix_length(one.tokens, tokens)) > most:
                best, most = one, length
        if best is not None:
            self._kept.remove(best)
            self._kept.append(best)
        return best, most

    def keep(self, prefix: Prefix) -> None:
        """Add a prefix, so that a later prompt that begins with it need not read it again.

        It replaces those of the same adapter that it continues, and those that were not used for the longest time.

        Args:
            prefix: a prefix; left out if it is empty or larger than the limit, or another one of the same adapter has
                the same tokens or continues them.
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
        """Remove prefixes, the longest unused first, for example when a prompt needs their memory.

        Args:
            limit: number of bytes to keep at most.
        """
        left = self.nbytes
        while self._kept and left > limit:
            left -= self._kept.pop(0).nbytes

    def forget(self, adapter: str | None) -> None:
        """Remove the prefixes of an adapter, which another one of the same name must not take over.

        Args:
            adapter: its name; None for the base model.
        """
        self._kept = [one for one in self._kept if one.adapter != adapter]
