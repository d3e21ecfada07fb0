"""Answers of a model to user messages."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(  # noqa: PLR0913 - the settings of sampling
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    system: str | None = None,
    batch_size: int = 8,
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
        seed: of the drawing; torch's own generator is left as it was.
        system: a system message for all; None leaves it to the template.
        batch_size: prompts computed at once.

    Returns:
        One answer a prompt, in order, without special tokens.
    """
    import torch

    sampling: dict[str, Any] = {"do_sample": do_sample}
    if do_sample:
        sampling |= {"temperature": temperature, "top_p": top_p, "top_k": 0}
    else:
        sampling |= {"temperature": None, "top_p": None, "top_k": None}
    training = model.training
    model.eval()
    answers: list[str] = []
    try:
        with torch.random.fork_rng(), torch.no_grad(), one_dtype(model):
            torch.manual_seed(seed)
            for start in range(0, len(prompts), batch_size):
                batch = encode(tokenizer, prompts[start : start + batch_size], system).to(model.device)
                output = model.generate(
                    **batch,
                    **sampling,
                    max_new_tokens=max_new_tokens,
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=end_tokens(model, tokenizer),
                )
                answers += tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    finally:
        model.train(training)
    return [answer.strip() for answer in answers]


def one_dtype(model: nn.Module) -> AbstractContextManager[Any]:
    """Autocast to the half precision that a part of the weights is in; nothing where all have one dtype.

    A model under training keeps trained weights in float32 beside a base in bfloat16.
    """
    import torch

    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    half = next(iter(dtypes & {torch.bfloat16, torch.float16}), None)
    if half is None or len(dtypes) == 1:
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, half)


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
