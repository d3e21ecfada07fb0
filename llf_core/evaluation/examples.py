"""The examples of an evaluation: tokens and labels as in training, and prompt and reference as messages."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llf_core.config.data import IGNORED
from llf_core.data.align import stages_for, wanted_kind
from llf_core.data.conversation import PROMPTS, TEXTS, answer_text
from llf_core.data.errors import OtherKindError
from llf_core.data.example_store import SET_COLUMN, tokenizer_hash
from llf_core.data.preparation import prepare
from llf_core.data.sources import sources_of
from llf_core.data.validation_split import conversations_at
from llf_core.evaluation.config_file import config_for, tokenization_of
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.request import VALIDATION
from llf_core.models.resolve import resolve_model
from llf_core.models.tokenizer import load_processor, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.data.conversation import Conversation
    from llf_core.data.preparation import Prepared
    from llf_core.evaluation.request import EvaluationRequest
    from llf_core.evaluation.worker_process import Progress


@dataclass(frozen=True)
class TokenizedPart:
    """A sequence of tokens that the model reads at once, with labels, -100 where a token is not in the loss."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def measured(self) -> int:
        """Number of tokens whose loss is measured, without the first of the sequence."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class EvaluationExample:
    """A record of a data set.

    Attributes:
        index: number of the record in it, counted from 0.
        parts: its sequences: one, or several if it was split at `cutoff_len`.
        prompt: the messages before the last answer; empty for plain text.
        reference: the last answer: its text, or its calls as JSON; None for plain text.
        row: the record; empty for streamed data, of which prompt and reference are not kept either.
    """

    source: str
    index: int
    parts: tuple[TokenizedPart, ...]
    prompt: tuple[dict[str, object], ...] = ()
    reference: str | None = None
    tools: tuple[dict[str, object], ...] = ()
    row: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        """Data set and number of the record."""
        return self.source, self.index


@dataclass(frozen=True)
class EvaluationExamples:
    """The examples that targets are measured on.

    Attributes:
        fingerprint: equal for the same records in the same order, whatever tokenizer and template.
        rendering: equal for the same tokens and labels.
    """

    names: tuple[str, ...]
    examples: tuple[EvaluationExample, ...]
    unusable: int
    fingerprint: str
    rendering: str


def read_validation(
    run: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    limit: int | None = None,
    progress: Callable[[str, int], None] | None = None,
    processor: ProcessorMixin | None = None,
) -> EvaluationExamples:
    """Read the validation data of a run, as it was held out in training.

    Args:
        limit: maximum number of examples of each data set, taken from the beginning; None for all.
        processor: of a model that takes images or sound too.

    Raises:
        EvaluationError: the run has no validation data, it has no answers, or it has pictures or sound.
    """
    if not (run.data.eval_dataset or run.data.val_size):
        raise EvaluationError(
            "The run has no validation data (eval_dataset or val_size).",
            "Name a data set that it was not trained on.",
        )
    if wanted_kind(run) == PROMPTS:
        raise EvaluationError(
            f"The run was trained by stage {run.stage.stage}, so its validation data is read as prompts without "
            "answers.",
            "Name a data set with answers.",
        )
    prepared = prepare(run, tokenizer, progress=progress, processor=processor)
    assert prepared.eval is not None  # noqa: S101 - the config has evaluation data
    counts = prepared.eval_counts
    sets = counts[:, SET_COLUMN].tolist() if len(counts) else [0] * len(prepared.eval)
    return _collect(run, tokenizer, validation_names(run), prepared, prepared.eval, sets, limit, None, processor)


def read_examples(  # noqa: PLR0913 - what is read, and how
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    run: RunConfig | None,
    *,
    template: str | None = None,
    limit: int | None = None,
    dataset_dir: str | None = None,
    held: Collection[tuple[str, int]] | None = None,
    progress: Callable[[str, int], None] | None = None,
    processor: ProcessorMixin | None = None,
) -> EvaluationExamples:
    """Read data sets, rendered, masked and truncated as in training.

    Args:
        run: config that decides how examples are rendered; None for defaults.
        template: name of the chat template if there is no run; None for the tokenizer's own.
        limit: maximum number of examples of each data set, taken from the beginning; None for all.
        dataset_dir: folder of named data sets; None for that of the run.
        held: data set and number of the records that are read; None for all.
        processor: of a model that takes images or sound too.
    """
    most = limit if held is None else None
    config, prepared = _prepared(names, tokenizer, run, template, most, dataset_dir, progress, processor)
    sets = prepared.counts[:, SET_COLUMN].tolist()
    return _collect(config, tokenizer, tuple(names), prepared, prepared.examples, sets, limit, held, processor)


def validation_names(run: RunConfig) -> tuple[str, ...]:
    """Names of the data sets that a run's validation data is part of."""
    return tuple(run.data.eval_dataset or run.data.dataset or ())


def _collect(  # noqa: PLR0913, PLR0917 - what was prepared, and what is kept of it
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    names: tuple[str, ...],
    prepared: Prepared,
    examples: Dataset,
    sets: list[int],
    limit: int | None,
    held: Collection[tuple[str, int]] | None,
    processor: ProcessorMixin | None,
) -> EvaluationExamples:
    labels = [source.label for source in sources_of(config, names)]
    kept = None if held is None else {(labels.index(label), index) for label, index in held}
    parts = _parts_by_place(examples, sets, limit, kept)
    found = {} if config.data.streaming else conversations_at(config, tokenizer, names, parts, processor)
    made = tuple(
        _example(labels[place[0]], place[1], own, *found.get(place, (None, {}))) for place, own in parts.items()
    )
    unusable = len(prepared.report.dropped) + len(prepared.report.broken)
    return EvaluationExamples(tuple(labels), made, unusable, _fingerprint(made), _rendering(made))


def _prepared(  # noqa: PLR0913, PLR0917 - the arguments of `read_examples`
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    run: RunConfig | None,
    template: str | None,
    limit: int | None,
    dataset_dir: str | None,
    progress: Callable[[str, int], None] | None,
    processor: ProcessorMixin | None,
) -> tuple[RunConfig, Prepared]:
    """Prepare data sets as conversations, or as the kind of data that they have."""

    def config_of(stage: str) -> RunConfig:
        return config_for(names, run, stage=stage, template=template, limit=limit, dataset_dir=dataset_dir)

    config = config_of("sft")
    try:
        return config, prepare(config, tokenizer, progress=progress, processor=processor)
    except OtherKindError as error:
        config = config_of(stages_for(error.kind)[0])
    return config, prepare(config, tokenizer, progress=progress, processor=processor)


def _parts_by_place(
    examples: Dataset, sets: list[int], limit: int | None, kept: Collection[tuple[int, int]] | None
) -> dict[tuple[int, int], list[TokenizedPart]]:
    """The sequences of each record, by number of the data set and of the record."""
    found: dict[tuple[int, int], list[TokenizedPart]] = {}
    counts: dict[int, int] = {}
    for number, row in zip(sets, examples, strict=True):
        place = (number, int(row["index"]))
        if kept is not None and place not in kept:
            continue
        if place not in found:
            if limit is not None and counts.get(number, 0) >= limit:
                continue
            counts[number] = counts.get(number, 0) + 1
            found[place] = []
        found[place].append(TokenizedPart(tuple(row["input_ids"]), tuple(row["labels"])))
    return found


def _example(
    source: str, index: int, parts: list[TokenizedPart], conversation: Conversation | None, row: Mapping[str, object]
) -> EvaluationExample:
    if conversation is None or conversation.kind == TEXTS:
        return EvaluationExample(source, index, tuple(parts), row=row)
    if conversation.media:
        raise EvaluationError(f"The data set {source} has pictures or sound, which an evaluation does not take yet.")
    *messages, answer = conversation.messages
    return EvaluationExample(
        source, index, tuple(parts), tuple(messages), answer_text(answer), conversation.tools or (), row
    )


def _fingerprint(examples: Sequence[EvaluationExample]) -> str:
    digest = hashlib.sha256()
    for one in examples:
        what = [one.source, one.index, list(one.prompt), one.reference, list(one.tools)]
        if one.reference is None:
            what.append(one.row)
        digest.update(json.dumps(what, sort_keys=True, default=str).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _rendering(examples: Sequence[EvaluationExample]) -> str:
    digest = hashlib.sha256()
    for one in examples:
        digest.update(repr([(part.ids, part.labels) for part in one.parts]).encode())
    return digest.hexdigest()[:16]


class ExampleReader:
    """Reads the examples of a request, once for each tokenizer and way of rendering.

    Args:
        first: config of the first run among the targets.
    """

    def __init__(self, request: EvaluationRequest, first: RunConfig | None, progress: Progress) -> None:
        self._request, self._first, self._progress = request, first, progress
        self._read: dict[tuple[str, str], EvaluationExamples] = {}
        self._held: set[tuple[str, int]] | None = None

    def settings_for(self, model: str | None) -> RunConfig | None:
        """The config by which examples of a model without a run are rendered: the first run's, if there is one.

        Its template is left out if it is of another model.
        """
        first = self._first
        if first is None or first.data.template is None or first.model.model_name_or_path == model:
            return first
        return first.replace(template=None)

    def read(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rendering: RunConfig | None,
        template: str | None,
        processor: ProcessorMixin | None = None,
    ) -> EvaluationExamples:
        """The examples for a tokenizer, template and rendering, which the targets on one base share.

        Args:
            rendering: config by which they are rendered; None for defaults.
            template: name of the chat template; None for the tokenizer's own.
            processor: of a base model that takes images or sound too.

        Raises:
            EvaluationError: there is no validation data, or the data has no answers, or has pictures or sound.
        """
        request, first, names = self._request, self._first, self._request.on
        folder = request.dataset_dir
        if names == (VALIDATION,):
            if first is None and (gone := next((one.run_id for one in request.targets if one.run_id), "")):
                raise EvaluationError(f"The run {gone} is no longer there, so its validation data cannot be read.")
            if first is None:
                raise EvaluationError("Only a run has validation data.", "Name a data set: a name, a file, or rows.")
            if self._held is None:
                self._read_validation(first)
            names, folder = validation_names(first), first.data.dataset_dir
        key = _key(tokenizer, rendering, template)
        if key not in self._read:
            self._read[key] = read_examples(
                names,
                tokenizer,
                rendering,
                template=template,
                limit=request.limit,
                dataset_dir=folder,
                held=self._held,
                progress=self._told,
                processor=processor,
            )
        return self._read[key]

    def _read_validation(self, first: RunConfig) -> None:
        """Read what the first run held out, by its own tokenizer, on which the split may depend."""
        source = resolve_model(first.model.model_name_or_path, first)
        tokenizer = load_tokenizer(source, first)
        processor = load_processor(source, first, tokenizer)
        limit = self._request.limit
        found = read_validation(first, tokenizer, limit=limit, progress=self._told, processor=processor)
        self._read[_key(tokenizer, first, first.data.template)] = found
        self._held = {one.key for one in found.examples}

    def _told(self, name: str, count: int) -> None:
        self._progress(f"Reading {name}, records", count, 0)


def _key(tokenizer: PreTrainedTokenizerBase, rendering: RunConfig | None, template: str | None) -> tuple[str, str]:
    """Equal where examples are rendered to the same tokens."""
    own = None if template is not None else tokenizer.chat_template
    return tokenizer_hash(tokenizer), repr((tokenization_of(rendering), template, own))
