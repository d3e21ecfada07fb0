"""Metrics of generated answers at each evaluation while a run trains."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llf_core.config.rules.evaluation import evaluation_sets, of_set
from llf_core.data.conversation import answer_text
from llf_core.data.example_store import SET_COLUMN
from llf_core.data.validation_split import conversations_at
from llf_core.generation.generate import continuations, end_tokens, without_accelerate
from llf_core.generation.message_prompt import PromptError, context_length, render_messages, takes_tools
from llf_core.generation.replies.reply_parser import reply_text
from llf_core.generation.sampling import Sampling
from llf_core.metrics import ScoredExample, score_answers
from llf_core.metrics.interval import interval
from llf_core.runs.charts import HIGH, LOW
from llf_core.runs.formatting import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.data.conversation import Conversation
    from llf_core.metrics import Metric
    from llf_core.metrics.measure import Numbers
    from llf_core.stages.base.context import TrainingContext

logger = logging.getLogger(__name__)


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
