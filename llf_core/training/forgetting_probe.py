"""Forgetting probe: a model's loss on questions of general knowledge, and its divergence from the base."""

from __future__ import annotations

import logging
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from llf_core.generation.generate import without_accelerate
from llf_core.models.device import autocast_mixed_dtypes
from llf_core.stages.reference_policy import eval_mode, use_adapter

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.runs import RunWriter

logger = logging.getLogger(__name__)

FILE = "probe_set.toml"
LOSS, KL = "forgetting/loss", "forgetting/kl"
"""Metrics of the probe, in nats per token of the answers."""


@dataclass(frozen=True)
class ProbeExample:
    """A question with its answer, int64 `[length]`; `start` is the index of the answer's first token, at least 1."""

    input_ids: Tensor
    start: int


class ForgettingProbe:
    """Measures a model on questions that ship with this project, without random numbers: losses do not change.

    They are about general knowledge, arithmetic, code, languages and instructions: a rising loss means lost
    abilities of the base. With an adapter, the base is the same model with the adapter disabled, and `KL(base ‖
    model)` of the answers' tokens shows how much has changed at all.
    """

    def __init__(self, writer: RunWriter, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._writer, self._model = writer, model
        self._examples = _probe_examples(tokenizer)
        self._last = -1

    def measure(self, step: int) -> dict[str, float]:
        """Write the metrics of a step, unless this step or a later one was measured already.

        If it fails (out of memory, for example), a warning is written and the run continues.

        Returns:
            `forgetting/loss` and `forgetting/kl` (with an adapter, and 0 before the first step), in nats per token
                of the answers; NaN if no question has a token in its answer. Empty if nothing was written.
        """
        if step <= self._last:
            return {}
        self._last = step
        try:
            values = self._values(at_start=step == 0)
        except Exception as error:  # noqa: BLE001 - models may raise anything; no loss depends on it
            message = f"What the model forgets could not be measured at step {step}: {type(error).__name__}: {error}"
            self._writer.warn("measure_forgetting", message)
            return {}
        self._writer.metric(step, values)
        return values

    def _values(self, *, at_start: bool) -> dict[str, float]:
        model: Any = self._model
        has_adapter = hasattr(model, "disable_adapter")
        totals = torch.zeros(2, dtype=torch.float64)
        tokens = 0
        with torch.no_grad(), eval_mode(model), without_accelerate(model), autocast_mixed_dtypes(model):
            for example in self._examples:
                logprobs = self._log_probs(example)
                targets = example.input_ids[example.start :].to(logprobs.device)
                totals[0] += F.nll_loss(logprobs, targets, reduction="sum").double().cpu()
                tokens += len(targets)
                if has_adapter:
                    with use_adapter(model, None):
                        base = self._log_probs(example)
                    totals[1] += F.kl_div(logprobs, base, reduction="sum", log_target=True).double().cpu()
        loss, kl = (totals / tokens).tolist()
        return {LOSS: loss} | ({KL: max(kl, 0.0)} if has_adapter else {KL: 0.0} if at_start else {})

    def _log_probs(self, example: ProbeExample) -> Tensor:
        """Log-probabilities at the positions of the answer, `[answer, vocabulary]`, float32."""
        device = self._model.get_input_embeddings().weight.device
        logits = self._model(input_ids=example.input_ids[None].to(device), use_cache=False).logits
        answer = len(example.input_ids) - example.start  # from the end: a prompt of PEFT adds positions
        return F.log_softmax(logits[0, -answer - 1 : -1].float(), dim=-1)


def probe_set() -> list[dict[str, str]]:
    """The questions, each with a `topic`, a `prompt` and an `answer`."""
    questions: list[dict[str, str]]
    questions = tomllib.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))["question"]
    return questions


def _probe_examples(tokenizer: PreTrainedTokenizerBase) -> list[ProbeExample]:
    """Tokenize the questions by the chat template, or as plain text if there is none or it refuses them.

    Questions without a token of their own in question or answer are left out.
    """
    found = []
    for one in probe_set():
        head = _prompt(tokenizer, one["prompt"])
        whole = tokenizer(head + one["answer"], add_special_tokens=False)["input_ids"]
        start = len(tokenizer(head, add_special_tokens=False)["input_ids"])
        if tokenizer.bos_token_id is not None and whole[:1] != [tokenizer.bos_token_id]:
            whole, start = [tokenizer.bos_token_id, *whole], start + 1
        if 0 < start < len(whole):
            found.append(ProbeExample(torch.tensor(whole), start))
    return found


def _prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    if tokenizer.chat_template:
        try:
            messages = [{"role": "user", "content": question}]
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # noqa: BLE001 - a template is a program that comes with the model
            logger.info("The chat template refuses a question of the probe set (%s).", error)
    return f"{question}\n"
