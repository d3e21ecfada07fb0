"""Reading a prompt, in pieces between which running replies go on."""

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
        reply: the reply; `Started` is reported.
        forward: forward passes of the model with the reply's adapter active.
        layers: number of layers of the cache.
        device: device of the token embedding.
        prefixes: where a common prefix is taken from.

    Attributes:
        cache: keys and values of the tokens that have been read, `[1, heads, length, head_dim]` each per layer.
        length: number of these tokens.

    Raises:
        RuntimeError: out of memory.
    """

    def __init__(
        self, reply: Reply, forward: CheckedForward, layers: int, device: torch.device, prefixes: PrefixCache
    ) -> None:
        self.reply, self._forward, self._device = reply, forward, device
        self.cache = growing_cache(layers, len(reply.prompt))
        prefix, self.length = prefixes.longest(reply.adapter, reply.prompt[:-1])
        if prefix is not None:
            for layer, (keys, values) in zip(self.cache.layers, prefix.layers, strict=True):
                layer.update(keys[:, :, : self.length], values[:, :, : self.length])
        reply.start(self.length)

    def step(self, size: int) -> Tensor | None:
        """Read the next tokens of the prompt; in pieces, so that running replies wait for a short time only.

        Args:
            size: maximum number of tokens.

        Returns:
            Logits after the prompt, `[1, vocabulary]`; None if tokens are left to read.

        Raises:
            RuntimeError: out of memory.
        """
        prompt = self.reply.prompt
        end = min(self.length + size, len(prompt))
        tokens = torch.tensor([prompt[self.length : end]], device=self._device)
        positions = torch.arange(self.length, end, device=self._device)[None]
        logits = self._forward.read(tokens, positions, None, self.cache)
        self.length = end
        return logits if end == len(prompt) else None

    def prefix(self) -> Prefix:
        """Keys and values of what has been read, without a copy, so that later prompts need not read the same again.

        Returns:
            Those of each layer, `[1, heads, length, head_dim]`, with their tokens.
        """
        layers = [(layer.keys, layer.values) for layer in self.cache.layers]
        return Prefix(self.reply.adapter, self.reply.prompt[: self.length], layers)
