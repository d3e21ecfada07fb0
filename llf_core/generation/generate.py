"""Generates completions of user messages or tokenized prompts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from llf_core.models.device import autocast_mixed_dtypes

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
    """Generate a completion of each prompt as its own conversation, without special tokens and surrounding whitespace.

    Prompts of a batch change no logit of each other by more than rounding; in 16 bits on a CPU by nothing.

    Args:
        model: causal language model or PEFT model; its training mode is the same afterwards.
        tokenizer: its tokenizer; without a chat template the prompt itself is continued.
        prompts: user messages.
        max_new_tokens: maximum number of tokens of a completion, at least 1.
        do_sample: sample tokens; else decode greedily.
        temperature: temperature of sampling, above 0.
        top_p: nucleus sampling: cumulative probability of the tokens to sample from, in (0, 1].
        top_k: number of most likely tokens to sample from; 0 for all.
        repetition_penalty: divides the scores of tokens that have already occurred; None for the model's own.
        seed: random seed; prompt `i` uses `seed + i`. The state of torch's global generator stays as it is.
        stop: stop strings; a completion ends before them.
        system: system message of all prompts; None leaves it to the template.
        batch_size: prompts per batch, at least 1.
        on_text: called with the index of a prompt and each new piece of its completion.
        cancelled: polled after each token; true ends all completions.

    Source:
        The order of the sampling parameters is that of transformers' `generate`; nucleus sampling: arXiv 1904.09751;
        repetition penalty: arXiv 1909.05858, section 4.1.
    """
    from llf_core.generation.sampling import Sampling

    if not prompts:
        return []
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


def answer_ids(  # noqa: PLR0913 - the settings of a completion
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
    """Generate completions as text after tokenized prompts, for callers with their own chat template; see `generate`.

    Args:
        sampling: sampling parameters; None for greedy decoding with the repetition penalty of the generation config.
        ends: further end-of-sequence token ids.
        on_done: called after each batch with the number of completed prompts.
    """
    from llf_core.generation.batches import BatchGenerator
    from llf_core.generation.sampling import Sampling

    if sampling is None:
        sampling = Sampling(repetition_penalty=repetition_penalty_of(model, None))
    with _evaluation_mode(model):
        ending = sorted({*(end_tokens(model, tokenizer) or ()), *ends})
        batches = BatchGenerator(model, tokenizer, ending, stop, on_text, cancelled)
        answers = batches.answer(prompts, sampling, max_new_tokens, batch_size, on_done)
    return [answer.strip() for answer in answers]


def continuations(  # noqa: PLR0913 - the settings of a completion
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    max_new_tokens: int | Sequence[int],
    batch_size: int = 8,
    on_token: Callable[[int, int], object] = lambda *_: None,
) -> list[list[int]]:
    """Generate completions as token ids after tokenized prompts, for the stages that train on them.

    Args:
        max_new_tokens: maximum number of tokens of a completion, at least 1; one for all, or one for each prompt.
        on_token: see `BatchGenerator.continuations`.

    Returns:
        Token ids of each completion, at least one, including the end-of-sequence token if it was reached.
    """
    from llf_core.generation.batches import BatchGenerator

    with _evaluation_mode(model):
        batches = BatchGenerator(model, tokenizer, end_tokens(model, tokenizer) or [])
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
        return batches.continuations(prompts, sampling, limits, batch_size, on_token)


@contextmanager
def _evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Context manager: evaluation mode and a single compute dtype."""
    training = model.training
    model.eval()
    try:
        with autocast_mixed_dtypes(model):
            yield
    finally:
        model.train(training)


def repetition_penalty_of(model: PreTrainedModel, asked: float | None) -> float:
    """Repetition penalty to use: the requested one, else that of the generation config, else 1."""
    configured = getattr(model.generation_config, "repetition_penalty", None)
    return float(next((one for one in (asked, configured) if one is not None), 1.0))


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], system: str | None = None) -> BatchEncoding:
    """Tokenize user messages as conversations that a completion continues, padded on the left.

    Args:
        system: system message of all prompts; not used without a chat template.

    Returns:
        A `BatchEncoding` with `input_ids` and `attention_mask`, `[prompts, longest]`, int64 each.

    Raises:
        ValueError: a prompt has no tokens, or the tokenizer has no padding token.
    """
    if tokenizer.chat_template:
        first = [] if system is None else [{"role": "system", "content": system}]
        texts = [
            tokenizer.apply_chat_template(
                [*first, {"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
            )
            for prompt in prompts
        ]
    else:
        texts = list(prompts)
    special = not tokenizer.chat_template
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=special)
    for number, tokens in enumerate(batch["attention_mask"].sum(1).tolist(), 1):
        if not tokens:
            raise ValueError(f"Prompt {number} has no tokens. Expected a text that is not empty.")
    return batch


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    """End-of-sequence token ids of the tokenizer and of the generation config; chat models often end by both."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return sorted(one for one in ids if one is not None) or None


def add_end_tokens(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Add end-of-sequence token ids to a model's generation config; transformers' `generate` reads no others."""
    generation = getattr(model, "generation_config", None)
    if generation is None or not ids:
        return
    configured = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    known = sorted({*ids, *(one for one in configured if one is not None)})
    generation.eos_token_id = known[0] if len(known) == 1 else known


@contextmanager
def without_accelerate(model: PreTrainedModel) -> Iterator[None]:
    """Context manager that removes accelerate's wrapper from a model's forward while it generates.

    With mixed precision the wrapper autocasts to half precision and copies every output to float32, for each token.
    """
    wrapped, own = model.__dict__.get("forward"), model.__dict__.get("_original_forward")
    if wrapped is None or own is None:
        yield
        return
    model.forward = own
    try:
        yield
    finally:
        model.forward = wrapped
