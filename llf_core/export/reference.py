"""Measures the live model, before anything of it is changed or written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.export.probes import CONVERSATIONS, MAX_ANSWER_TOKENS, MAX_POSITIONS, PROMPTS, TEXTS
from llf_core.generation.generate import continuations, end_tokens, repetition_penalty_of
from llf_core.generation.sampling import Sampling
from llf_core.models.device import autocast_mixed_dtypes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Reference:
    """Answers and logits of the live model on the probes.

    Attributes:
        prompts: token ids of each prompt.
        answers: token ids of the greedy answer to each prompt.
        logits: for each prompt `[N, V]` float32, at the last N positions (up to `MAX_POSITIONS`) of it with its answer.
        tokens: token ids of each of `TEXTS`.
        rendered: text of each of `CONVERSATIONS`; None for one that the template refuses.
        stops: token ids that end an answer.
    """

    prompts: list[list[int]]
    answers: list[list[int]]
    logits: list[Tensor]
    tokens: list[list[int]]
    rendered: list[str | None]
    template: str | None
    stops: list[int]

    @property
    def sequences(self) -> list[list[int]]:
        """Token ids of each prompt with its answer."""
        return [prompt + answer for prompt, answer in zip(self.prompts, self.answers, strict=True)]


def measure_reference(
    model: object, tokenizer: PreTrainedTokenizerBase, progress: Callable[[str, int, int], object]
) -> Reference:
    """Measure a model in evaluation mode on the probes of `export.probes`; logits are `[N, V]`."""
    what = "Measuring the live model"
    total = 2 * len(PROMPTS)
    prompts = [prompt_ids(tokenizer, text) for text in PROMPTS]
    sampling = Sampling(repetition_penalty=repetition_penalty_of(model, None))
    answers = []
    for number, prompt in enumerate(prompts):
        progress(what, number, total)
        answers += continuations(model, tokenizer, [prompt], sampling=sampling, max_new_tokens=MAX_ANSWER_TOKENS)
    sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    logits = logits_of(model, sequences, lambda done: progress(what, len(PROMPTS) + done, total))
    return Reference(
        prompts,
        answers,
        logits,
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS],
        [rendered(tokenizer, one) for one in CONVERSATIONS],
        str(tokenizer.chat_template) if tokenizer.chat_template else None,
        end_tokens(model, tokenizer) or [],
    )


def logits_of(model: Any, sequences: Sequence[Sequence[int]], on_done: Callable[[int], object]) -> list[Tensor]:
    """Logits at the end of token sequences, one forward pass for each, without padding.

    Returns:
        For each sequence `[N, V]` float32 on the CPU: N positions, at most `MAX_POSITIONS`, and V tokens.
    """
    import torch

    device = model.get_input_embeddings().weight.device
    found = []
    with torch.no_grad(), autocast_mixed_dtypes(model):
        for number, ids in enumerate(sequences):
            on_done(number)
            row = torch.tensor([list(ids)], device=device)
            made = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits
            found.append(made[0, -min(MAX_POSITIONS, len(ids)) :].float().cpu())
    return found


def prompt_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a user message by the chat template, up to where the answer begins.

    Where the template is missing or refuses the message, those of the text alone.
    """
    message = {"messages": [{"role": "user", "content": text}], "add_generation_prompt": True}
    prompt = rendered(tokenizer, message)
    ids: list[int] = (tokenizer(text) if prompt is None else tokenizer(prompt, add_special_tokens=False))["input_ids"]
    return ids


def rendered(tokenizer: PreTrainedTokenizerBase, conversation: dict[str, Any]) -> str | None:
    """Text of one of `CONVERSATIONS` by the chat template; None if that is missing, ambiguous or refuses it."""
    if not tokenizer.chat_template:
        return None
    arguments = {"tools": conversation.get("tools"), "add_generation_prompt": conversation["add_generation_prompt"]}
    try:
        return str(tokenizer.apply_chat_template(conversation["messages"], tokenize=False, **arguments))
    except Exception:  # noqa: BLE001 - a template refuses with any error, such as for a role that it does not know
        return None
