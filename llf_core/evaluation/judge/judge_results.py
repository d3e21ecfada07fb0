"""Asks a judge about the answers of results, each pair in both orders."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.evaluation.comparison import comparable, pairs_of
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.examples import EvaluationExample
from llf_core.evaluation.judge.judge import MAX_TOKENS, SCHEMA, Endpoint, question, read_verdict
from llf_core.runs.evaluations import JudgedPair, add_verdict, examples_of, pair_key, read_result, verdicts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from llf_core.evaluation.comparison import ExamplePair
    from llf_core.evaluation.judge.judge import Judge
    from llf_core.evaluation.worker_process import Progress
    from llf_core.runs.evaluations import EvaluationResult, Outcome

PARALLEL = 8
"""Pairs that an endpoint judges at the same time."""
AT_A_TIME = 32
"""Pairs that a model judges before their verdicts are stored."""
OUTCOMES: tuple[dict[str, Outcome], dict[str, Outcome]] = (
    {"A": "lose", "B": "win", "tie": "tie"},
    {"A": "win", "B": "lose", "tie": "tie"},
)
"""Outcome for the second model, where the answer of the first model is A, and where it is B."""


@dataclass(frozen=True)
class AskedPair:
    """A pair of answers that has no verdict yet; `result` is the second model's."""

    base: EvaluationResult
    result: EvaluationResult
    pair: ExamplePair


def judge_key(judge: Judge, weights: str = "") -> str:
    """Key of the same model, asked in the same way; `weights` are those of `weights_key`, empty for an endpoint."""
    what = [judge.url, judge.model, weights, judge.rubric, SCHEMA, MAX_TOKENS]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def judge_results(judge: Judge, folders: Sequence[Path], progress: Progress) -> None:
    """Have the answers of each result compared with those of the first one, and store the verdicts as they come.

    Each pair is judged in both orders, since judges prefer the answer in one place (arXiv 2306.05685, section 3.4).
    Equal answers are a tie without asking. Pairs that this judge has judged are not asked again.

    Args:
        folders: folders of at least two results of the same examples, the first model's first.
    """
    if judge.target is None:
        _with_endpoint(judge, folders, progress)
    else:
        _with_model(judge, folders, progress)


def _with_endpoint(judge: Judge, folders: Sequence[Path], progress: Progress) -> None:
    key, endpoint = judge_key(judge), Endpoint(judge)
    pairs = list(_unjudged(judge, key, folders))
    done = 0

    def said(asked: AskedPair) -> tuple[AskedPair, list[str], list[str]]:
        replies = [endpoint.ask(one) for one in _questions(judge, asked.pair)]
        return asked, [one.text for one in replies], [one.problem for one in replies]

    progress(f"Verdicts of {judge.name}", 0, len(pairs))
    with ThreadPoolExecutor(PARALLEL) as pool:
        waiting = [pool.submit(said, one) for one in pairs]
        try:
            for future in as_completed(waiting):
                _store(judge, key, *future.result())
                done += 1
                progress(f"Verdicts of {judge.name}", done, len(pairs))
        except BaseException:
            endpoint.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _with_model(judge: Judge, folders: Sequence[Path], progress: Progress) -> None:
    from llf_core.chat.target import plan_base
    from llf_core.evaluation.answers import generate_answers
    from llf_core.evaluation.loaded_targets import PlannedResult, loaded_targets, loading_of, named_target, places_of
    from llf_core.models.resolve import resolve_model
    from llf_core.runs.evaluations import EvaluatedData

    target = judge.target
    assert target is not None  # noqa: S101 - the caller asks
    loading = loading_of(target, None)
    named = named_target(target, resolve_model(loading.model.model_name_or_path, loading).path, "judge")
    key = judge_key(judge, named.weights)
    pairs = list(_unjudged(judge, key, folders))
    if not pairs:
        return
    plan_base(loading)
    plan = PlannedResult(0, target, loading, *places_of(target), named, EvaluatedData(), {})
    for _, loaded in loaded_targets([plan], generates=True, progress=progress):
        if loaded.engine is None:
            raise RuntimeError("A judge needs an engine.")
        for start in range(0, len(pairs), AT_A_TIME):
            chosen = pairs[start : start + AT_A_TIME]
            asked = [
                EvaluationExample("judge", number, (), one)
                for number, one in enumerate(one for pair in chosen for one in _questions(judge, pair.pair))
            ]
            answers = generate_answers(
                loaded.engine,
                loaded.adapter,
                asked,
                MAX_TOKENS,
                lambda done, start=start: progress(f"Verdicts of {judge.name}", start + done // 2, len(pairs)),  # type: ignore[misc]
                json_schema=SCHEMA,
            )
            for pair, first in zip(chosen, range(0, len(answers), 2), strict=True):
                own = answers[first : first + 2]
                _store(judge, key, pair, [one.text or "" for one in own], [one.problem for one in own])


def _unjudged(judge: Judge, key: str, folders: Sequence[Path]) -> Iterator[AskedPair]:
    """Pairs without a verdict of this judge; those with equal answers get one here."""
    first, *others = (read_result(folder) for folder in folders)
    base = examples_of(first)
    for result in others:
        pairs = pairs_of(base, examples_of(result)) if comparable(first, result) else []
        answered = [one for one in pairs if one.base.answer is not None and one.tuned.answer is not None]
        if not answered:
            raise EvaluationError(f"{first.target.name} and {result.target.name} have no answers to the same prompts.")
        known = verdicts_of(result, [(one.base, one.tuned) for one in answered]).get(key, {})
        for pair in answered:
            if pair.tuned.key in known:
                continue
            if pair.base.answer == pair.tuned.answer:
                add_verdict(result, _verdict(judge, key, AskedPair(first, result, pair), (), ()))
            else:
                yield AskedPair(first, result, pair)


def _questions(judge: Judge, pair: ExamplePair) -> list[tuple[dict[str, object], ...]]:
    base, tuned = pair.base.answer or "", pair.tuned.answer or ""
    prompt, reference = pair.base.prompt, pair.base.reference
    return [question(judge.rubric, prompt, reference, *order) for order in ((base, tuned), (tuned, base))]


def _store(judge: Judge, key: str, asked: AskedPair, texts: Sequence[str], problems: Sequence[str]) -> None:
    orders = tuple(
        None if (found := read_verdict(text)) is None else outcomes[found]
        for text, outcomes in zip(texts, OUTCOMES, strict=True)
    )
    replies = tuple(text or problem for text, problem in zip(texts, problems, strict=True))
    add_verdict(asked.result, _verdict(judge, key, asked, orders, replies))


def _verdict(
    judge: Judge, key: str, asked: AskedPair, orders: tuple[Outcome | None, ...], replies: tuple[str, ...]
) -> JudgedPair:
    one, base = asked.pair.tuned, asked.base.target
    pair = pair_key(asked.pair.base, one)
    return JudgedPair(one.source, one.index, pair, key, judge.name, orders, replies, base.weights, base.name)
