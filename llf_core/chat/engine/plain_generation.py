"""Replies by transformers' `generate`, one token per step: for models, adapters and inputs without a fast loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from llf_core.chat.engine.row_batch import accept_tokens

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from llf_core.chat.engine.reply import Reply


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
