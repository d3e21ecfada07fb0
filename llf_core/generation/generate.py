"""Answers of a model to user messages."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llf_core.models.mixed_dtypes import one_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    """Answers each prompt as a conversation of its own; batches are padded on the left, so they change nothing.

    Args:
        model: a causal language model or a PEFT model; its training mode is left as it was.
        tokenizer: its tokenizer; without a chat template the prompt itself is continued.
        prompts: user messages.
        max_new_tokens: where an answer that does not end is cut.
        do_sample: draw tokens; else always the likeliest.
        temperature: of the drawing.
        top_p: share of the probability that is drawn from.
        top_k: how many tokens are drawn from; 0 for all.
        repetition_penalty: scores of tokens that are there already are divided by it; None for the model's own.
        seed: of the drawing, of prompt `i` it is `seed + i`; torch's own generator is left as it was.
        stop: texts that end an answer; neither they nor what follows belongs to it.
        system: a system message for all; None leaves it to the template.
        batch_size: prompts computed at once.
        on_text: called with a prompt's number and each new piece of its answer.
        cancelled: asked after each token; true ends all answers where they are.

    Returns:
        One answer a prompt, in order, without special tokens and without space around it.
    """
    from llf_core.generation.sampling import Sampling

    batch = encode(tokenizer, prompts, system)
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return answer_ids(
        model,
        tokenizer,
        [row[mask.bool()].tolist() for row, mask in rows],
        sampling=Sampling(do_sample, temperature, top_k, top_p, penalty_of(model, repetition_penalty), seed),
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
    """`generate` after prompts that are tokens already.

    Args:
        model: see `generate`.
        tokenizer: reads the answers.
        prompts: token ids of each.
        sampling: how tokens are drawn; None for always the likeliest.
        max_new_tokens: where an answer that does not end is cut.
        ends: further tokens that end an answer.
        stop: see `generate`.
        batch_size: prompts computed at once.
        on_text: see `generate`.
        on_done: called with how many prompts are answered.
        cancelled: see `generate`.

    Returns:
        One answer a prompt, in order, without special tokens and without space around it.
    """
    from llf_core.generation.batches import Batches
    from llf_core.generation.sampling import Sampling

    if sampling is None:
        sampling = Sampling(repetition_penalty=penalty_of(model, None))
    with _answering(model):
        ending = sorted({*(end_tokens(model, tokenizer) or ()), *ends})
        batches = Batches(model, tokenizer, ending, stop, on_text, cancelled)
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
    """`answer_ids` as tokens.

    Args:
        model: see `generate`.
        tokenizer: its tokenizer.
        prompts: token ids of each, none empty.
        sampling: how tokens are drawn.
        max_new_tokens: where an answer that does not end is cut, at least 1; one for all, or one each.
        batch_size: prompts computed at once.
        on_token: called after each token with how many prompts are answered, and the tokens of its answer so far.

    Returns:
        Token ids of each answer, at least one; one that ends an answer is its last.
    """
    from llf_core.generation.batches import Batches

    with _answering(model):
        batches = Batches(model, tokenizer, end_tokens(model, tokenizer) or [])
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
        return batches.continuations(prompts, sampling, limits, batch_size, on_token)


@contextmanager
def _answering(model: PreTrainedModel) -> Iterator[None]:
    """A model in evaluation mode and one dtype; its mode is left as it was."""
    training = model.training
    model.eval()
    try:
        with one_dtype(model):
            yield
    finally:
        model.train(training)


def penalty_of(model: PreTrainedModel, asked: float | None) -> float:
    """The repetition penalty that was asked for, else that of the model's generation config, else 1."""
    configured = getattr(model.generation_config, "repetition_penalty", None)
    return float(next((one for one in (asked, configured) if one is not None), 1.0))


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], system: str | None = None) -> Any:
    """Token ids of prompts, padded on the left.

    Returns:
        A `BatchEncoding` of `input_ids` and `attention_mask`, each `[prompts, longest]`.
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
    """Ids that end an answer: the tokenizer's and those of the model's generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return sorted(one for one in ids if one is not None) or None


def end_at(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Has a model's answers end at further tokens, wherever it is loaded: its generation config says so.

    transformers' own `generate` asks the generation config alone, not the tokenizer.
    """
    generation = getattr(model, "generation_config", None)
    if generation is None or not ids:
        return
    configured = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    known = sorted({*ids, *(one for one in configured if one is not None)})
    generation.eos_token_id = known[0] if len(known) == 1 else known
