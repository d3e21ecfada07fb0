"""Measures targets; those with the same base model share its weights."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.chat.target import loading_config, plan_base
from llf_core.evaluation.comparison import LOSS_MEASURES, measure_of_metric
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.examples import ExampleReader
from llf_core.evaluation.loaded_targets import (
    PlannedResult,
    keep_for_others,
    known_result,
    loaded_targets,
    loading_of,
    named_target,
    places_of,
    run_of,
)
from llf_core.metrics import ScoredExample, load_metrics, score_answers
from llf_core.models.resolve import resolve_model
from llf_core.models.tokenizer import load_processor, load_tokenizer
from llf_core.runs.config_file import run_config
from llf_core.runs.evaluations import (
    EvaluatedData,
    EvaluationWriter,
    ExampleResult,
    TokenLosses,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.evaluation.examples import EvaluationExample, EvaluationExamples
    from llf_core.evaluation.likelihood import PartLosses
    from llf_core.evaluation.loaded_targets import LoadedTarget
    from llf_core.evaluation.request import EvaluationRequest
    from llf_core.evaluation.worker_process import Progress
    from llf_core.metrics import Metric
    from llf_core.runs.evaluations import EvaluationResult


DECIMALS = 5
"""Decimals of a token's loss in a file."""


@dataclass(frozen=True)
class PlannedMeasurement(PlannedResult):
    """A target that is measured on examples."""

    examples: EvaluationExamples
    max_new_tokens: int


def measure_targets(request: EvaluationRequest, progress: Progress, on_result: Callable[[int, Path], object]) -> None:
    """Measure the targets of a request. All data is read and checked before the first model is loaded.

    Args:
        on_result: called with the number of a target and the folder of its complete result.
    """
    code = None if request.code is None else Path(request.code)
    metrics = load_metrics(request.metrics, code)
    planned = []
    for plan in _plan(request, metrics, progress):
        known = None if request.again else known_result(plan)
        if known is None:
            planned.append(plan)
        else:
            on_result(plan.number, known)
    groups: dict[str, list[PlannedMeasurement]] = {}
    for plan in planned:
        groups.setdefault(plan.target.base_key, []).append(plan)
    for group in groups.values():
        _measure_group(group, metrics, progress, on_result, generates=request.generates)


def _plan(request: EvaluationRequest, metrics: Sequence[Metric], progress: Progress) -> Iterator[PlannedMeasurement]:
    runs = [run_of(target) for target in request.targets]
    configs = [None if run is None else run_config(run) for run in runs]
    reader = ExampleReader(request, next((one for one in configs if one is not None), None), progress)
    for number, (target, config) in enumerate(zip(request.targets, configs, strict=True)):
        model = loading_config(target.config).model.model_name_or_path
        rendering = config or reader.settings_for(model)
        loading = loading_of(target, None if rendering is None else rendering.data.template)
        source = resolve_model(loading.model.model_name_or_path, loading)
        tokenizer = load_tokenizer(source, loading)
        processor = load_processor(source, loading, tokenizer)
        examples = reader.read(tokenizer, rendering, loading.data.template or target.template, processor)
        _check_examples(examples, metrics, generates=request.generates)
        plan = plan_base(loading)
        yield PlannedMeasurement(
            number,
            target,
            loading,
            *places_of(target),
            named_target(target, source.path, examples.rendering),
            EvaluatedData(examples.names, examples.fingerprint, len(examples.examples), examples.unusable),
            {
                "metrics": [metric.name for metric in metrics],
                "functions": _function_hashes(request),
                "limit": request.limit,
                "max_new_tokens": request.max_new_tokens if request.generates else None,
                "device": plan.device,
                "dtype": plan.dtype,
            },
            examples,
            request.max_new_tokens,
        )


def _function_hashes(request: EvaluationRequest) -> dict[str, str]:
    """SHA-256 of the source of each metric that is a function."""
    files = [] if request.code is None else sorted(Path(request.code).glob("*.py"))
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files}


def _check_examples(examples: EvaluationExamples, metrics: Sequence[Metric], *, generates: bool) -> None:
    names = ", ".join(examples.names)
    if not examples.examples:
        raise EvaluationError(f"{names} has no usable example.", "`llf inspect` says why.")
    if not generates:
        return
    if not any(one.prompt for one in examples.examples):
        raise EvaluationError(
            f"{names} is plain text without prompts, so no answers can be generated.",
            "Leave out metrics and judge, or name a data set with prompts and answers.",
        )
    needing = [metric.name for metric in metrics if metric.declaration.needs_reference]
    if needing and not any(one.reference for one in examples.examples):
        raise EvaluationError(
            f"{names} has no reference answers, and {', '.join(needing)} compares with them.",
            "Name a data set with answers, or another metric.",
        )


def _measure_group(
    group: Sequence[PlannedMeasurement],
    metrics: Sequence[Metric],
    progress: Progress,
    on_result: Callable[[int, Path], object],
    *,
    generates: bool,
) -> None:
    for plan, loaded in loaded_targets(group, generates=generates, progress=progress):
        result = _measure(plan, loaded, metrics, progress)
        keep_for_others(plan, result)
        on_result(plan.number, result.folder)


def _measure(
    plan: PlannedMeasurement, loaded: LoadedTarget, metrics: Sequence[Metric], progress: Progress
) -> EvaluationResult:
    from llf_core.evaluation.answers import generate_answers
    from llf_core.evaluation.likelihood import measure_losses

    started = time.monotonic()
    examples, label = plan.examples.examples, plan.target.name
    parts = [part for one in examples for part in one.parts]
    with EvaluationWriter(plan.place, plan.named, plan.data, plan.settings) as writer:
        with loaded.adapters.active(loaded.adapter) as model:
            losses = measure_losses(model, parts, lambda done: progress(f"Loss of {label}", done, len(parts)))
        of_parts = iter(losses)
        found = [
            _with_losses(one, [next(of_parts) for _ in one.parts], loaded.base_tokenizer, writer) for one in examples
        ]
        tokens = sum(len(part.ids) for part in parts)
        if loaded.engine is not None:
            asked = [number for number, one in enumerate(examples) if one.prompt]
            answers = generate_answers(
                loaded.engine,
                loaded.adapter,
                [examples[number] for number in asked],
                plan.max_new_tokens,
                lambda done: progress(f"Answers of {label}", done, len(asked)),
            )
            tokens += sum(answer.tokens for answer in answers)
            for number, answer in zip(asked, answers, strict=True):
                found[number] = replace(found[number], answer=answer.text)
            progress(f"Scoring the answers of {label}", 0, 0)
            found = _with_scores(found, examples, metrics)
        for example in found:
            writer.example(example)
        values = [measure.value(found) for measure in (*LOSS_MEASURES, *map(measure_of_metric, metrics))]
        return writer.finish([one for one in values if one is not None], time.monotonic() - started, tokens)


def _with_losses(
    example: EvaluationExample,
    losses: Sequence[PartLosses],
    tokenizer: PreTrainedTokenizerBase,
    writer: EvaluationWriter,
) -> ExampleResult:
    """Result of an example without an answer; its token losses are written."""
    texts: list[str] = []
    costs: list[float] = []
    size = correct = 0
    for part, measured in zip(example.parts, losses, strict=True):
        texts += token_texts(tokenizer, part.ids, measured.places)
        costs += measured.losses
        correct += sum(measured.correct)
        size += text_bytes(tokenizer, part.ids, measured.places)
    writer.token_losses(
        TokenLosses(example.index, tuple(texts), tuple(round(cost, DECIMALS) for cost in costs), example.source)
    )
    return ExampleResult(
        example.index,
        example.source,
        example.prompt,
        example.reference,
        tokens=len(costs),
        nll=math.fsum(costs),
        bytes=size,
        correct=correct,
    )


def _with_scores(
    results: Sequence[ExampleResult], examples: Sequence[EvaluationExample], metrics: Sequence[Metric]
) -> list[ExampleResult]:
    answered = [number for number, one in enumerate(results) if one.answer is not None]
    answers = [results[number].answer or "" for number in answered]
    seen = [ScoredExample(examples[n].prompt, examples[n].reference or None, examples[n].row) for n in answered]
    scores: list[dict[str, float]] = [{} for _ in results]
    for metric in metrics:
        for number, score in zip(answered, score_answers(metric, answers, seen).scores, strict=True):
            if score is not None:
                scores[number][metric.name] = score
    return [replace(one, scores=own) for one, own in zip(results, scores, strict=True)]


UNFINISHED = "\ufffd"  # a decoder's placeholder for the first bytes of a character

CONTEXT = 8
"""Tokens before a token with which it is decoded, since a decoder treats the first one differently."""


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], places: Sequence[int]) -> tuple[str, ...]:
    """The text of some tokens of a sequence, by ascending positions.

    A character that takes several tokens is in the text of its last one; joined, neighbouring texts are their text.
    """
    texts: list[str] = []
    for _, group in groupby(enumerate(places), key=lambda one: one[1] - one[0]):
        run = [place for _, place in group]
        held = run[0]
        for place in run:
            start = max(0, held - CONTEXT)
            before, after = tokenizer.batch_decode(
                [list(ids[start:held]), list(ids[start : place + 1])], skip_special_tokens=False
            )
            text = after[len(before) :] if after.startswith(before) else tokenizer.decode([ids[place]])
            if text.endswith(UNFINISHED) and place != run[-1]:
                texts.append("")
            else:
                texts.append(text)
                held = place + 1
    return tuple(texts)


def text_bytes(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], places: Sequence[int]) -> int:
    """Number of bytes in UTF-8 of the text of some tokens, by ascending positions, without special tokens."""
    runs = [
        [ids[place] for _, place in group] for _, group in groupby(enumerate(places), key=lambda one: one[1] - one[0])
    ]
    return sum(len(text.encode("utf-8", "replace")) for text in tokenizer.batch_decode(runs, skip_special_tokens=True))
