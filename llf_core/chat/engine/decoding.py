"""Generates a token of each running reply per step: in a batch, or by transformers' `generate` without a fast loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from llf_core.chat.engine.reply import failure
from llf_core.chat.engine.token_choice import choose_tokens
from llf_core.generation.kv_cache import RowsCache

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
