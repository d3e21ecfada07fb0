"""Reads a prompt in pieces, between which running replies go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llf_core.chat.engine.prefix_cache import Prefix
from llf_core.generation.kv_cache import growing_cache

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.chat.engine.prefix_cache import PrefixCache
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
