"""Sample prompts: completions of the base model, and of the trained model over time."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

from llf_core.generation import generate
from llf_core.generation.generate import without_accelerate
from llf_core.models.adapter_merging import continues_adapter
from llf_core.runs import RunReader
from llf_core.stages.base.ranks import is_main
from llf_core.stages.base.sharding import whole_on_main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder, RunWriter

logger = logging.getLogger(__name__)

BASE, TUNED = "base", "tuned"


class SamplePrompts:
    """Writes greedy completions of fixed prompts to `samples.jsonl`, without random numbers: losses do not change.

    `last` is the step of the last complete sampling; -1 before the first.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it needs to sample
        self,
        folder: RunFolder,
        writer: RunWriter,
        config: RunConfig,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        added: Sequence[str] = (),
    ) -> None:
        """Read what earlier attempts wrote, so that the base model is not sampled twice."""
        self.added = list(added)
        lines = (config.generation.watched_prompts or "").splitlines()
        self._configured = [line.strip() for line in lines if line.strip()]
        self._max_tokens = config.generation.watched_tokens
        self._system = config.data.default_system
        self._continues = continues_adapter(config)
        self._model, self._tokenizer, self._writer = model, tokenizer, writer
        told = (one.get("prompt") for one in RunReader(folder).samples() if one.get("of") == BASE)
        self._known = {prompt for prompt in told if isinstance(prompt, str)}  # anybody may have written the file
        self.last = -1

    @property
    def prompts(self) -> list[str]:
        """All sample prompts without duplicates: those of the config, then those added while the run trains."""
        return list(dict.fromkeys([*self._configured, *self.added]))

    @property
    def base_can_wait(self) -> bool:
        """Whether the base model can be sampled after the first step: a new adapter can be disabled at any time."""
        return self._base(1) is not None

    def add(self, prompt: str) -> bool:
        """Add a prompt to all later samplings; a checkpoint stores it. False if it is one of the prompts already."""
        if prompt in self.prompts:
            return False
        self.added.append(prompt)
        return True

    def answer(self, step: int, only: str | None = None) -> int:
        """Write the current model's completions, at most once per step, and those of the base that are not written yet.

        Before the first step only the base answers. If it fails (out of memory, a prompt that the template refuses),
        a warning is written and the run continues. `only` samples just this prompt, also again. Returns the number
        of sampled prompts.
        """
        try:
            return self._answer(step, only)
        except Exception as error:  # noqa: BLE001 - models and templates may raise anything; no loss depends on it
            message = (
                f"The completions of the watched prompts could not be generated at step {step}: "
                f"{type(error).__name__}: {error}"
            )
            self._writer.warn("watched_prompts", message)
            return 0

    def _answer(self, step: int, only: str | None) -> int:
        prompts = self.prompts if only is None else [only]
        if not prompts or (only is None and step == self.last):
            return 0
        with whole_on_main(self._model):
            self._sample(prompts, step)
        if only is None:
            self.last = max(self.last, step)
        return len(prompts)

    def _sample(self, prompts: list[str], step: int) -> None:
        new = [prompt for prompt in prompts if prompt not in self._known]
        base = self._base(step)
        if new and base is not None:
            # Prompts of the config are recorded at step 0, also if the base model was sampled later.
            first, later = ([one for one in new if (one in self._configured) is early] for early in (True, False))
            with base():
                self._write(first, 0, BASE)
                self._write(later, step, BASE)
            self._known.update(new)
        if step:
            self._write(prompts, step, TUNED)

    def _write(self, prompts: list[str], step: int, of: str) -> None:
        if not prompts or not is_main():
            return
        with without_accelerate(self._model):
            answers = generate(
                self._model, self._tokenizer, prompts, max_new_tokens=self._max_tokens, system=self._system
            )
        for prompt, text in zip(prompts, answers, strict=True):
            self._writer.sample(step=step, kind="answer", prompt=prompt, text=text, of=of)

    def _base(self, step: int) -> Callable[[], AbstractContextManager[object]] | None:
        """Context in which the model acts as the base model: a new adapter is disabled; else only before step 1."""
        off: Callable[[], AbstractContextManager[object]] | None = getattr(self._model, "disable_adapter", None)
        turned_off = None if self._continues else off
        return turned_off or (nullcontext if step == 0 else None)
