"""Reads a prompt in pieces, between which running replies go on, after the keys and values of a kept prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llf_core.data.common_prefix import common_prefix_length
from llf_core.generation.kv_cache import growing_cache

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.chat.engine.reply import Reply
    from llf_core.generation.checked_forward import CheckedForward


class Prefill:
    """Reads the prompt of one reply into a cache of its own.

    Args:
        forward: forward passes of the model with the reply's adapter active.
        device: device of the token embedding.
        chunk: the prompt is read in chunks that end at multiples of this number of tokens, and only whole ones are
            taken from a prefix and kept, so that keys and values do not depend on what was read before; 1 if they do
            not anyway.

    Attributes:
        cache: keys and values of the tokens that have been read, `[1, heads, length, head_dim]` each per layer.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - created in one place
        self,
        reply: Reply,
        forward: CheckedForward,
        layers: int,
        device: torch.device,
        prefixes: PrefixCache,
        chunk: int,
    ) -> None:
        self.reply, self._forward, self._device, self._chunk = reply, forward, device, chunk
        self.cache = growing_cache(layers, len(reply.prompt))
        prefix, common = prefixes.longest(reply.adapter, reply.prompt[:-1])
        self.length = common - common % chunk
        if prefix is not None and self.length:
            for layer, (keys, values) in zip(self.cache.layers, prefix.layers, strict=True):
                layer.update(keys[:, :, : self.length], values[:, :, : self.length])
        reply.start(self.length)

    def step(self, size: int) -> Tensor | None:
        """Read up to `size` tokens, or a chunk; the logits `[1, vocabulary]` after the prompt, None before its end."""
        prompt = self.reply.prompt
        end = min(self.length + (size if self._chunk == 1 else self._chunk), len(prompt))
        tokens = torch.tensor([prompt[self.length : end]], device=self._device)
        positions = torch.arange(self.length, end, device=self._device)[None]
        logits = self._forward.read(tokens, positions, None, self.cache)
        self.length = end
        return logits if end == len(prompt) else None

    def prefix(self) -> Prefix:
        """Tokens that have been read, with views of their keys and values `[1, heads, length, head_dim]` per layer."""
        whole = self.length - self.length % self._chunk
        layers = [(layer.keys[:, :, :whole], layer.values[:, :, :whole]) for layer in self.cache.layers if whole]
        return Prefix(self.reply.adapter, self.reply.prompt[:whole], layers)


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
