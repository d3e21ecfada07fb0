"""Answers to many prompts, some at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.generation.decode_loop import decode
from llf_core.generation.decoder import Decoder
from llf_core.generation.supported_models import unsupported
from llf_core.generation.text_stream import TextStream
from llf_core.generation.transformers_generate import decode_plainly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from llf_core.generation.sampling import Sampling


class Batches:
    """Answers prompts, the longest ones together.

    Args:
        model: a causal language model, perhaps wrapped by PEFT, in evaluation mode.
        tokenizer: its tokenizer.
        ends: ids that end an answer.
        stops: texts that end an answer.
        on_text: called with a prompt's number and each new piece of its answer.
        cancelled: asked after each token.

    Attributes:
        plain: why `model.generate` does it, or why single tokens go through the model's own forward; None where
            neither is so.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one place that makes it
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        ends: Sequence[int],
        stops: Sequence[str] = (),
        on_text: Callable[[int, str], object] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._model, self._tokenizer, self._ends, self._stops = model, tokenizer, list(ends), stops
        self._on_text, self._cancelled = on_text, cancelled
        self.plain = unsupported(model)
        self._decoder = Decoder(model) if self.plain is None else None

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        max_new_tokens: int,
        batch_size: int,
        on_done: Callable[[int], object] = lambda _: None,
    ) -> list[str]:
        """Texts after token ids of prompts, in order; `on_done` hears after each batch how many there are."""
        answers = [""] * len(prompts)
        done = 0
        for chosen in _by_length(prompts, batch_size):
            streams = [self._stream(number) for number in chosen]

            def put(row: int, token: int, streams: list[TextStream] = streams) -> bool:
                return streams[row].put(token)

            self._continue([prompts[number] for number in chosen], chosen, put, sampling, max_new_tokens)
            for number, stream in zip(chosen, streams, strict=True):
                stream.close()
                answers[number] = stream.text
            done += len(chosen)
            on_done(done)
            if self._cancelled():
                break
        return answers

    def continuations(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        limits: Sequence[int],
        batch_size: int,
        on_token: Callable[[int, int], object] = lambda *_: None,
    ) -> list[list[int]]:
        """Token ids after those of prompts, in order; the id that ends an answer is its last one.

        `limits` says where each is cut. `on_token` hears after each token how many answers there are, and how long
        that one is which it belongs to.
        """
        found: list[list[int]] = [[] for _ in prompts]
        ends = set(self._ends)
        done = 0
        for chosen in _by_length(prompts, batch_size):

            def put(row: int, token: int, chosen: Sequence[int] = chosen) -> bool:
                nonlocal done
                own = found[chosen[row]]
                own.append(token)
                ended = token in ends or len(own) == limits[chosen[row]]
                done += ended
                on_token(done, len(own))
                return ended

            longest = max(limits[number] for number in chosen)
            self._continue([prompts[number] for number in chosen], chosen, put, sampling, longest)
        return found

    def _stream(self, number: int) -> TextStream:
        on_text = self._on_text
        piece = None if on_text is None else lambda text: on_text(number, text)
        return TextStream(self._tokenizer, self._ends, self._stops, piece)

    def _continue(
        self,
        prompts: Sequence[Sequence[int]],
        numbers: Sequence[int],
        put: Callable[[int, int], bool],
        sampling: Sampling,
        max_new_tokens: int,
    ) -> None:
        if self._decoder is not None:
            logits = self._decoder.read(prompts, max_new_tokens)
            self.plain = self._decoder.plain
            decode(
                self._decoder,
                logits,
                prompts,
                sampling=sampling,
                max_new_tokens=max_new_tokens,
                put=put,
                cancelled=self._cancelled,
                numbers=numbers,
            )
            return
        decode_plainly(
            self._model,
            prompts,
            sampling=sampling,
            max_new_tokens=max_new_tokens,
            pad=self._tokenizer.pad_token_id or 0,
            ends=self._ends,
            put=put,
            cancelled=self._cancelled,
            numbers=numbers,
        )


def _by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """The numbers of prompts in batches, the longest ones first."""
    order = sorted(range(len(prompts)), key=lambda one: -len(prompts[one]))
    for start in range(0, len(prompts), batch_size):
        yield order[start : start + batch_size]
