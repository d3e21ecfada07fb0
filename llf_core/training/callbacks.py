"""Small callbacks: the method after each step, freed memory, early stopping, sample prompts, metrics of answers."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from transformers import EarlyStoppingCallback, TrainerCallback

from llf_core.config.rules.evaluation import evaluation_sets, of_set
from llf_core.data.conversation import answer_text
from llf_core.data.example_store import SET_COLUMN
from llf_core.data.validation_split import conversations_at
from llf_core.generation import generate
from llf_core.generation.generate import continuations, end_tokens, without_accelerate
from llf_core.generation.replies.reply_parser import reply_text
from llf_core.generation.sampling import Sampling
from llf_core.generation.text_stream import PromptError, context_length, render_messages, takes_tools
from llf_core.metrics import ScoredExample, score_answers
from llf_core.metrics.interval import interval
from llf_core.models.adapter_merging import continues_adapter
from llf_core.models.memory import release_free_memory
from llf_core.runs import RunReader
from llf_core.runs.charts import HIGH, LOW
from llf_core.runs.formatting import number
from llf_core.runs.writer import begin_phase
from llf_core.stages.base.ranks import is_main, whole_on_main
from llf_core.training.checkpoint_check import as_damaged, damaged_state, trainer_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

    from llf_core.config import RunConfig
    from llf_core.data.conversation import Conversation
    from llf_core.methods.method import Method
    from llf_core.metrics import Metric
    from llf_core.metrics.base_metric import Numbers
    from llf_core.runs import Checkpoints, RunFolder, RunWriter
    from llf_core.runs.writer import Phase
    from llf_core.stages.base.context import TrainingContext


METHOD_FILE = "method.safetensors"
"""File of a checkpoint with the state of its method, if it has one."""


class MethodCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Calls `Method.after_step`, and writes `Method.state` into each checkpoint before it counts as complete."""

    def __init__(self, method: Method, checkpoints: Checkpoints, resumed: Path | None = None) -> None:
        self._method = method
        self._checkpoints = checkpoints
        self._resumed = resumed

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Restore the method's state, if there is one, once the Trainer has loaded the checkpoint's weights."""
        del args, state, control
        if self._resumed is not None and (self._resumed / METHOD_FILE).is_file():
            with as_damaged(self._resumed, METHOD_FILE):
                self._method.restore(load_file(self._resumed / METHOD_FILE))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Call the method after the weights have changed; the gradients, which AdaLoRA needs, are still there."""
        del args, control
        self._method.after_step(state.global_step + 1, state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Write the method's state, if it has one, as `method.safetensors`."""
        del args, control
        if found := self._method.state():
            save_file(
                {name: tensor.contiguous() for name, tensor in found.items()},
                self._checkpoints.path(state.global_step) / METHOD_FILE,
            )


class PhaseCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Writes a `phase` event when an evaluation after the last step begins, and when it has ended."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._last: Phase | None = None

    def begin(self, name: Phase) -> None:
        """Record the start of a phase (`evaluation` or `saving`), unless it is the last recorded one."""
        if name != self._last:
            self._last = name
            begin_phase(self._writer, name)

    def on_prediction_step(
        self,
        args: TrainingArguments,  # noqa: ARG002 - of transformers
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: object,
    ) -> None:
        """Record an evaluation by the Trainer itself after the last step, with its first batch."""
        if 0 < state.max_steps <= state.global_step:
            self.begin("evaluation")

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002 - of transformers
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **_: object,
    ) -> None:
        """Record that an evaluation after the last step has ended: what follows saves a checkpoint or the result."""
        if self._last == "evaluation":
            self.begin("saving")


class FreedMemory(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Releases memory that the first step has freed, and that later steps would not use again.

    Loading the model leaves gaps, and the first optimizer step puts its state between the gradients, which are then
    freed. The next steps' tensors do not fit into all gaps: 0.8 of 7.2 GB for GaLore at one billion parameters.
    Later steps leave no such gaps, and each release costs the next step 0.5 s (embedded model).
    """

    def __init__(self) -> None:
        self._is_first = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Release the memory after the first step of this process; the gradients are freed by now."""
        del args, state, control
        if self._is_first:
            self._is_first = False
            release_free_memory()


def early_stopping(patience: int, checkpoint: Path | None) -> EarlyStoppingCallback:
    """Create the Trainer's early stopping callback, with its patience counter restored on resume.

    The Trainer restores callbacks only by an option that would restore all of them. ModelError if the checkpoint's
    `trainer_state.json` is damaged.
    """
    callback = EarlyStoppingCallback(early_stopping_patience=patience)
    if checkpoint is not None:
        kept = trainer_state(checkpoint).stateful_callbacks
        try:
            attributes = kept.get("EarlyStoppingCallback", {}).get("attributes", {})
            callback.early_stopping_patience_counter = int(attributes.get("early_stopping_patience_counter", 0))
        except (AttributeError, TypeError, ValueError) as error:
            raise damaged_state(checkpoint, error) from error
    return callback


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


@dataclass(frozen=True)
class AnsweredPrompt:
    """A prompt of the validation data, with its token ids; `source` is its data set in the names of metrics."""

    ids: list[int]
    text: str
    tools: tuple[dict[str, Any], ...] = ()
    example: ScoredExample = field(default_factory=ScoredExample)
    source: str = ""


class AnswerMetrics:
    """Generates greedy answers to validation prompts and scores them, without random numbers: losses do not change.

    The answers are the same as those of an evaluation (`llf_core.evaluation`) of the same weights on the same
    examples. `directions`: whether higher is better, by name of each value of `measure`.
    """

    def __init__(self, context: TrainingContext, metrics: Sequence[Metric]) -> None:
        """Read and render the first validation examples of each data set, see `first_of_each`.

        Prompts that cannot be rendered or are too long are left out, with a warning event.
        """
        config = context.config
        self.metrics = tuple(metrics)
        self._max_tokens = config.evaluation.metrics_tokens
        self._batch_size = config.training.per_device_eval_batch_size
        self._model, self._tokenizer, self._writer = context.model, context.tokenizer, context.writer
        self._prompts = self._rendered(context)
        self._warned: set[str] = set()
        self._sets = evaluation_sets(config) if config.evaluation.eval_on_each_dataset else ()
        self.directions = {
            of_set(source, one.name) if source else one.name: one.declaration.higher_is_better
            for source in ("", *self._sets)
            for one in self.metrics
        }

    def measure(self, step: int) -> dict[str, float]:
        """Answer the prompts and score the answers.

        Errors are written as a warning, once for each cause, and the run continues.

        Returns:
            The value of each metric by name, with the bounds of its 95 % interval (see `llf_core.metrics.interval`)
                as `name/low` and `name/high`; with `eval_on_each_dataset` also of each data set, as `set_name`.
        """
        try:
            answers = self._answers()
        except Exception as error:  # noqa: BLE001 - models may raise anything; no loss depends on it
            self._warn(step, f"no answers could be generated: {type(error).__name__}: {error}")
            return {}
        found: dict[str, float] = {}
        examples = [one.example for one in self._prompts]
        for metric in self.metrics:
            try:
                scored = score_answers(metric, answers, examples)
                values = self._values(metric, scored.statistics)
            except Exception as error:  # noqa: BLE001 - metrics are code of users and plug-ins
                self._warn(step, str(error))
                continue
            if not values:
                self._warn(step, f"the metric {metric.name} applies to none of the {len(examples)} examples.")
            found |= values
        told = "  ".join(f"{one.name} {number(found[one.name])}" for one in self.metrics if one.name in found)
        logger.info("Answers at step %d: %s", step, told or "no metric")
        return found

    def _values(self, metric: Metric, statistics: Numbers) -> dict[str, float]:
        """Value and interval of a metric over all answers and each data set, from `[answers, statistics]`."""
        found: dict[str, float] = {}
        for source in ("", *self._sets):
            rows = [place for place, one in enumerate(self._prompts) if source in {"", one.source}]
            value = interval(statistics[rows], metric.measure)
            name = of_set(source, metric.name) if source else metric.name
            bounds = {name: value.value, name + LOW: value.low, name + HIGH: value.high}
            found |= {one: number for one, number in bounds.items() if number is not None}
        return found

    def _answers(self) -> list[str]:
        ends = end_tokens(self._model, self._tokenizer) or []
        context = context_length(self._model)
        room = [self._max_tokens if context is None else context - len(one.ids) for one in self._prompts]
        with without_accelerate(self._model):
            tokens = continuations(
                self._model,
                self._tokenizer,
                [one.ids for one in self._prompts],
                sampling=Sampling(),
                max_new_tokens=[min(self._max_tokens, one) for one in room],
                batch_size=self._batch_size,
            )
        return [
            reply_text(ids, self._tokenizer, ends, prompt=one.text, tools=one.tools)
            for ids, one in zip(tokens, self._prompts, strict=True)
        ]

    def _rendered(self, context: TrainingContext) -> list[AnsweredPrompt]:
        data, config = context.data, context.config
        if data.eval is None:
            return []
        sets = data.eval_counts[:, SET_COLUMN].tolist()
        places = first_of_each(list(zip(sets, data.eval["index"], strict=True)), config.evaluation.metrics_examples)
        names = config.data.eval_dataset or config.data.dataset or ()
        found = conversations_at(config, context.tokenizer, names, places)
        labels = evaluation_sets(config)
        rendered = [self._prompt(*found[place], labels[place[0]]) for place in places if place in found]
        kept = [one for one in rendered if one is not None]
        if len(kept) < len(rendered):
            self._tell(f"{len(rendered) - len(kept)} of {len(rendered)} prompts cannot be rendered or are too long.")
        return kept

    def _prompt(self, conversation: Conversation, row: Any, source: str) -> AnsweredPrompt | None:
        *messages, answer = conversation.messages
        tools = conversation.tools or ()
        if conversation.media or (tools and not takes_tools(self._tokenizer)):
            return None
        try:
            text = render_messages(messages, self._tokenizer, tools=tools)
        except PromptError:
            return None
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        limit = context_length(self._model)
        if not ids or (limit is not None and len(ids) >= limit):
            return None
        example = ScoredExample(tuple(messages), answer_text(answer) or None, row)
        return AnsweredPrompt(ids, text, tuple(tools), example, source)

    def _warn(self, step: int, why: str) -> None:
        if why not in self._warned:
            self._warned.add(why)
            self._tell(f"At step {step}: {why}")

    def _tell(self, why: str) -> None:
        self._writer.warn("metrics", f"Metrics of generated answers. {why}")


def first_of_each(places: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """The first records of each data set, equally many (at least one) of each, without duplicates and in order."""
    of_sets: dict[int, list[tuple[int, int]]] = {}
    for place in dict.fromkeys(places):
        of_sets.setdefault(place[0], []).append(place)
    limit = max(1, most // max(1, len(of_sets)))
    kept = {place for own in of_sets.values() for place in own[:limit]}
    return [place for place in dict.fromkeys(places) if place in kept]
