"""Batched generation."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from llf_core.config.name_checks.architecture_properties import indexed_types
from llf_core.generation.decode_loop import decode
from llf_core.generation.decoder import Decoder
from llf_core.generation.supported_models import causal_model, unsupported
from llf_core.generation.text_stream import TextStream
from llf_core.generation.transformers_generate import decode_with_transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from llf_core.generation.sampling import Sampling


class BatchGenerator:
    """Generates completions in batches of prompts of similar length; of equal length with indexed attention.

    Args:
        model: causal language model in evaluation mode, wrapped by PEFT or not.
        ends: end-of-sequence token ids.
        on_text: called with the index of a prompt and each new piece of its completion.
        cancelled: polled after each token; true ends generation.

    Attributes:
        plain: why `model.generate`, or the model's own forward for single tokens, is used; None if neither is.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - created in one place
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
        self._equal = causal_model(model).config.get_text_config(decoder=True).model_type in indexed_types()

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        max_new_tokens: int,
        batch_size: int,
        on_done: Callable[[int], object] = lambda _: None,
    ) -> list[str]:
        """Generate completions as text, in order; empty for prompts that were not reached before `cancelled`.

        Args:
            prompts: token ids of each prompt, none empty.
            on_done: called after each batch with the number of completed prompts.
        """
        answers = [""] * len(prompts)
        done = 0
        for chosen in _by_length(prompts, batch_size, equal=self._equal):
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
        """Generate completions as token ids, in order, including the end-of-sequence token if it was reached.

        Once `cancelled` is true, the running completions end, and later ones have at most one token.

        Args:
            prompts: token ids of each prompt, none empty.
            limits: maximum number of tokens of each completion, at least 1.
            on_token: called after each token with the number of completed prompts and the length of its completion.
        """
        if len(limits) != len(prompts) or min(limits, default=1) < 1:
            raise ValueError(f"limits is {list(limits)}. Expected {len(prompts)} integers of at least 1.")
        found: list[list[int]] = [[] for _ in prompts]
        ends = set(self._ends)
        done = 0
        for chosen in _by_length(prompts, batch_size, equal=self._equal):

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
        decode_with_transformers(
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


def _by_length(prompts: Sequence[Sequence[int]], batch_size: int, *, equal: bool) -> Iterator[list[int]]:
    """Indices of prompts in batches, longest prompts first."""
    order = sorted(range(len(prompts)), key=lambda one: -len(prompts[one]))
    for _, group in groupby(order, lambda one: len(prompts[one]) if equal else 0):
        alike = list(group)
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size]
