"""Batched generation: the decode loop, or transformers' `generate` for models that the loop does not support."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from llf_core.config.name_checks.architecture_properties import indexed_types
from llf_core.generation.checked_forward import CHUNK, CheckedForward
from llf_core.generation.decoder_block import causal_model, unsupported
from llf_core.generation.kv_cache import RowsCache, growing_cache
from llf_core.generation.sampling import TokenSampler
from llf_core.generation.text_stream import TextStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
        _decode_with_transformers(
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


def decode(  # noqa: PLR0913 - the settings of a completion
    decoder: Decoder,
    logits: Tensor,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    max_new_tokens: int,
    put: Callable[[int, int], bool],
    cancelled: Callable[[], bool] = lambda: False,
    numbers: Sequence[int] | None = None,
) -> None:
    """Generate tokens after the prompts that a decoder has read. Finished rows leave the batch.

    Args:
        logits: logits `[batch, vocabulary]` that its `read` returned.
        prompts: token ids of each row, for the repetition penalty.
        max_new_tokens: maximum number of tokens of a row, at least 1.
        put: called with a row and its new token; returns whether the row ends with it.
        cancelled: polled after each step; true ends generation.
        numbers: index of each row among all prompts, which selects its random seed; None if these are all prompts.
    """
    rows = list(range(len(prompts)))
    of = list(rows if numbers is None else numbers)
    sampler = TokenSampler(sampling, of, logits.device)
    texts = [list(prompt) for prompt in prompts]
    for left in range(max_new_tokens - 1, -1, -1):
        tokens = sampler(logits, [of[row] for row in rows], [texts[row] for row in rows])
        ended = [at for at, (row, token) in enumerate(zip(rows, tokens, strict=True)) if put(row, token)]
        if len(ended) == len(rows) or not left or cancelled():
            return
        for at in reversed(ended):
            decoder.leave(at)
            for one in (rows, tokens):
                one[at] = one[-1]
                del one[-1]
        for row, token in zip(rows, tokens, strict=True):
            texts[row].append(token)
        logits = decoder.step(tokens)


class _Watch(StoppingCriteria):  # type: ignore[misc]  # transformers ships no types
    """Stopping criterion that reports each row's new token, ends finished rows, and stops when cancelled."""

    def __init__(self, rows: int, put: Callable[[int, int], bool], cancelled: Callable[[], bool]) -> None:
        self._put, self._cancelled = put, cancelled
        self.done = [False] * rows

    def __call__(self, input_ids: Tensor, *_: object, **__: object) -> Tensor:
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if not self.done[row]:
                self.done[row] = self._put(row, token)
        if self._cancelled():
            self.done = [True] * len(self.done)
        return torch.tensor(self.done, device=input_ids.device)


def _decode_with_transformers(  # noqa: PLR0913 - the settings of a completion
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    max_new_tokens: int,
    pad: int,
    ends: Sequence[int] | None,
    put: Callable[[int, int], bool],
    cancelled: Callable[[], bool] = lambda: False,
    numbers: Sequence[int] | None = None,
) -> None:
    """Generate tokens with `model.generate`, for models that the decode loop does not support; see `decode`.

    Sampled rows are computed one by one, each with its own seed; `cancelled` is also polled before each of them.

    Args:
        pad: token id of padding.
        ends: end-of-sequence token ids; None or none for the model's generation config.
    """
    of = list(numbers) if numbers is not None else list(range(len(prompts)))
    if sampling.do_sample and len(prompts) > 1:
        for row, prompt in enumerate(prompts):
            if row and cancelled():
                return
            _decode_with_transformers(
                model,
                [prompt],
                sampling=sampling,
                max_new_tokens=max_new_tokens,
                pad=pad,
                ends=ends,
                put=lambda _, token, row=row: put(row, token),  # type: ignore[misc]
                cancelled=cancelled,
                numbers=[of[row]],
            )
        return
    longest = max(map(len, prompts))
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([[pad] * (longest - len(one)) + list(one) for one in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts], device=device)
    warpers: dict[str, float | None] = {"temperature": None, "top_p": None, "top_k": None}
    if sampling.do_sample:
        warpers = {"temperature": float(sampling.temperature), "top_p": sampling.top_p, "top_k": sampling.top_k}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(sampling.seed + of[0])
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=sampling.do_sample,
            repetition_penalty=float(sampling.repetition_penalty),
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            eos_token_id=list(ends) if ends else None,
            stopping_criteria=StoppingCriteriaList([_Watch(len(prompts), put, cancelled)]),
            **warpers,
        )


class Decoder:
    """Reads prompts into a key-value cache, then one token per row and step, see `CheckedForward`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._layers = causal_model(model).config.get_text_config(decoder=True).num_hidden_layers
        self._device = model.get_input_embeddings().weight.device
        self._forward = CheckedForward(model)
        self._rows = RowsCache(self._layers, self._device)
        coarse = any(one.dtype.itemsize == 2 for one in model.parameters())  # noqa: PLR2004 - bytes
        self._each_alone = coarse and self._device.type == "cpu"

    @property
    def plain(self) -> str | None:
        """Why single tokens go through the model's own forward, which is slower; None if they do not."""
        return self._forward.plain

    def read(self, prompts: Sequence[Sequence[int]], room: int) -> Tensor:
        """Clear the cache and read one prompt per row; the logits after each, `[batch, vocabulary]`.

        Args:
            room: number of tokens that will follow, for which the cache reserves room.
        """
        self._rows = RowsCache(self._layers, self._device)
        self._rows.reserve(len(prompts), max(map(len, prompts)) + room)
        if self._each_alone:
            return torch.cat([self._read_alone(prompt) for prompt in prompts])
        longest = max(map(len, prompts))
        cache = growing_cache(self._layers, longest)
        tokens = torch.tensor([[0] * (longest - len(one)) + list(one) for one in prompts], device=self._device)
        lengths = torch.tensor([len(one) for one in prompts], device=self._device)
        columns = torch.arange(longest, device=self._device)
        mask = None if len(set(map(len, prompts))) == 1 else columns >= longest - lengths[:, None]
        positions = (columns - (longest - lengths[:, None])).clamp(min=0)
        logits = self._forward.read(tokens, positions, mask, cache)
        self._rows.take(cache, lengths.tolist())
        return logits

    def _read_alone(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt in chunks, so that its results in 16 bits depend on nothing else."""
        cache = growing_cache(self._layers, len(prompt))
        for start in range(0, len(prompt), CHUNK):
            tokens = torch.tensor([prompt[start : start + CHUNK]], device=self._device)
            positions = torch.arange(start, start + tokens.shape[1], device=self._device)[None]
            logits = self._forward.read(tokens, positions, None, cache)
        self._rows.join([(layer.keys, layer.values) for layer in cache.layers])
        return logits

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read the token id chosen for each row; returns the logits after them, `[batch, vocabulary]`."""
        return self._forward.step(torch.tensor(tokens, device=self._device), self._rows)

    def leave(self, row: int) -> None:
        """Remove a finished row; the last row takes its index."""
        self._rows.leave(row)
