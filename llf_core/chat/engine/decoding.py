"""Generates a token of each running reply per step: in a batch, or by transformers' `generate` without a fast loop.

Reads a prompt in pieces, between which running replies go on, after the keys and values of a kept prefix.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from llf_core.chat.engine.reply import choose_tokens, failure
from llf_core.data.common_prefix import common_prefix_length
from llf_core.generation.kv_cache import RowsCache, growing_cache

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

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


class PlainGeneration:
    """Generates one reply in a thread that waits after each token until `step` lets it go on.

    Only one of both threads runs at a time, so other replies may use the model between two tokens.

    Args:
        inputs: `input_ids` and `attention_mask` `[1, prompt]`, int64, and further inputs of the model.
        pad: token id of padding.
    """

    def __init__(
        self, model: Any, inputs: dict[str, Tensor], reply: Reply, pad: int, autocast: AbstractContextManager[object]
    ) -> None:
        self._model, self._inputs, self._pad, self._autocast = model, inputs, pad, autocast
        self.reply = reply
        self.error: Exception | None = None
        self._go, self._returned = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="llf-generate", daemon=True)
        self._over = False

    def step(self) -> bool:
        """Let the thread generate one token; false at the end, also by an exception, which `error` then has."""
        if not self._thread.ident:
            self._thread.start()
        self._go.release()
        self._returned.acquire()
        return not self._over

    def _run(self) -> None:
        self._go.acquire()
        try:
            with torch.no_grad(), self._autocast:
                self._model.generate(
                    **self._inputs,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    repetition_penalty=1.0,
                    max_new_tokens=self.reply.limit,
                    pad_token_id=self._pad,
                    eos_token_id=None,
                    logits_processor=LogitsProcessorList([_Choose(self.reply)]),
                    stopping_criteria=StoppingCriteriaList([_Wait(self)]),
                )
        except Exception as error:  # noqa: BLE001 - handed to the engine's thread
            self.error = error
        finally:
            self._over = True
            self._returned.release()

    def wait(self) -> bool:
        """Wait after a token until the engine calls `step` again; whether the reply has ended. `generate` calls it."""
        if not self.reply.done:
            self._returned.release()
            self._go.acquire()
        return self.reply.done


class _Choose(LogitsProcessor):  # type: ignore[misc]  # transformers ships no types
    """Has `generate` take the token that the reply's own sampling parameters choose."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - transformers' signature
        known = len(self._reply.tokens)
        accept_tokens(scores, [self._reply])
        token = self._reply.tokens[-1] if len(self._reply.tokens) > known else 0
        forced = torch.full_like(scores, -torch.inf)
        forced[0, token] = 0
        return forced


class _Wait(StoppingCriteria):  # type: ignore[misc]  # transformers ships no types
    def __init__(self, generation: PlainGeneration) -> None:
        self._generation = generation

    def __call__(self, input_ids: Tensor, *_: object, **__: object) -> Tensor:
        return torch.full((len(input_ids),), self._generation.wait(), device=input_ids.device)


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
