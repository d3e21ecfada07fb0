"""Generates answers to user messages."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from llf_core.models.mixed_dtypes import autocast_mixed_dtypes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.generation.sampling import Sampling


def generate(  # noqa: PLR0913 - the settings of sampling
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    system: str | None = None,
    batch_size: int = 8,
    on_text: Callable[[int, str], object] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Answer each prompt as its own conversation. Batches are padded on the left, which does not change the answers.

    Args:
        model: causal language model or PEFT model; its training mode is the same afterwards.
        tokenizer: its tokenizer; without a chat template the prompt itself is continued.
        prompts: user messages.
        max_new_tokens: maximum number of tokens of an answer.
        do_sample: sample tokens; else decode greedily.
        temperature: temperature of sampling.
        top_p: nucleus sampling: cumulative probability of the tokens to sample from.
        top_k: number of most likely tokens to sample from; 0 for all.
        repetition_penalty: factor that reduces the scores of tokens that have already occurred; None for the model's
            own.
        seed: random seed; prompt `i` uses `seed + i`. torch's global generator is not used.
        stop: stop strings; an answer ends before them.
        system: system message of all prompts; None leaves it to the template.
        batch_size: prompts per batch.
        on_text: called with the index of a prompt and each new piece of its answer.
        cancelled: polled after each token; true ends all answers.

    Returns:
        One answer for each prompt, in order, without special tokens and surrounding whitespace.
    """
    from llf_core.generation.sampling import Sampling

    batch = encode(tokenizer, prompts, system)
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return answer_ids(
        model,
        tokenizer,
        [row[mask.bool()].tolist() for row, mask in rows],
        sampling=Sampling(do_sample, temperature, top_k, top_p, repetition_penalty_of(model, repetition_penalty), seed),
        max_new_tokens=max_new_tokens,
        stop=stop,
        batch_size=batch_size,
        on_text=on_text,
        cancelled=cancelled,
    )


def answer_ids(  # noqa: PLR0913 - the settings of an answer
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling | None = None,
    max_new_tokens: int = 64,
    ends: Sequence[int] = (),
    stop: Sequence[str] = (),
    batch_size: int = 8,
    on_text: Callable[[int, str], object] | None = None,
    on_done: Callable[[int], object] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Generate answers as text after tokenized prompts.

    Args:
        model: see `generate`.
        tokenizer: decodes the answers.
        prompts: token ids of each prompt.
        sampling: sampling parameters; None for greedy decoding.
        max_new_tokens: maximum number of tokens of an answer.
        ends: further end-of-sequence token ids.
        stop: see `generate`.
        batch_size: prompts per batch.
        on_text: see `generate`.
        on_done: called with the number of answered prompts.
        cancelled: see `generate`.

    Returns:
        One answer for each prompt, in order, without special tokens and surrounding whitespace.
    """
    from llf_core.generation.batches import BatchGenerator
    from llf_core.generation.sampling import Sampling

    if sampling is None:
        sampling = Sampling(repetition_penalty=repetition_penalty_of(model, None))
    with _answering(model):
        ending = sorted({*(end_tokens(model, tokenizer) or ()), *ends})
        batches = BatchGenerator(model, tokenizer, ending, stop, on_text, cancelled)
        answers = batches.answer(prompts, sampling, max_new_tokens, batch_size, on_done)
    return [answer.strip() for answer in answers]


def continuations(  # noqa: PLR0913 - the settings of an answer
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    max_new_tokens: int | Sequence[int],
    batch_size: int = 8,
    on_token: Callable[[int, int], object] = lambda *_: None,
) -> list[list[int]]:
    """Generate answers as token ids after tokenized prompts.

    Args:
        model: see `generate`.
        tokenizer: its tokenizer.
        prompts: token ids of each prompt, none empty.
        sampling: sampling parameters.
        max_new_tokens: maximum number of tokens of an answer, at least 1; one for all, or one for each prompt.
        batch_size: prompts per batch.
        on_token: called after each token with the number of answered prompts and the length of the token's answer.

    Returns:
        Token ids of each answer, at least one, including the end-of-sequence token.
    """
    from llf_core.generation.batches import BatchGenerator

    with _answering(model):
        batches = BatchGenerator(model, tokenizer, end_tokens(model, tokenizer) or [])
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
        return batches.continuations(prompts, sampling, limits, batch_size, on_token)


@contextmanager
def _answering(model: PreTrainedModel) -> Iterator[None]:
    """Context manager: evaluation mode and a single compute dtype. Restores the previous mode."""
    training = model.training
    model.eval()
    try:
        with autocast_mixed_dtypes(model):
            yield
    finally:
        model.train(training)


def repetition_penalty_of(model: PreTrainedModel, asked: float | None) -> float:
    """Repetition penalty to use.

    Args:
        model: for its generation config.
        asked: the requested penalty; None for the one of the generation config, or 1.
    """
    configured = getattr(model.generation_config, "repetition_penalty", None)
    return float(next((one for one in (asked, configured) if one is not None), 1.0))


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], system: str | None = None) -> BatchEncoding:
    """Tokenize prompts as conversations, padded on the left.

    Args:
        tokenizer: with or without a chat template.
        prompts: user messages.
        system: system message of all prompts; None leaves it to the template.

    Returns:
        A `BatchEncoding` with `input_ids` and `attention_mask`, `[prompts, longest]` each.
    """
    if not tokenizer.chat_template:
        return tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    first = [] if system is None else [{"role": "system", "content": system}]
    texts = [
        tokenizer.apply_chat_template(
            [*first, {"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt in prompts
    ]
    return tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    """End-of-sequence token ids of the tokenizer and of the model's generation config.

    Args:
        model: for its generation config.
        tokenizer: the tokenizer.

    Returns:
        Token ids; None if there are none.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return sorted(one for one in ids if one is not None) or None


def add_end_tokens(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Add end-of-sequence token ids to a model's generation config, which is saved with the model.

    transformers' own `generate` reads the generation config only, not the tokenizer.

    Args:
        model: changed in place.
        ids: token ids.
    """
    generation = getattr(model, "generation_config", None)
    if generation is None or not ids:
        return
    configured = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    known = sorted({*ids, *(one for one in configured if one is not None)})
    generation.eos_token_id = known[0] if len(known) == 1 else known
