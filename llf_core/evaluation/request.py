"""The request of an evaluation, for its process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from llf_core.chat.target import Target
from llf_core.evaluation.judge.judge import Judge

MAX_NEW_TOKENS = 256
VALIDATION = "validation"
SHOTS_SEED = 1234
"""Seed of the choice of solved examples in the prompts of tasks, lm-eval's."""


@dataclass(frozen=True)
class EvaluationRequest:
    """An evaluation.

    Attributes:
        on: names of data sets; or `validation` alone, the validation data of the first target that is a run; empty to
            measure tasks alone.
        metrics: names of metrics of generated answers; empty to measure losses alone.
        limit: maximum number of examples of each data set, taken from the beginning; None for all.
        dataset_dir: folder of named data sets; None for that of the run.
        again: whether targets are measured again that have a result already.
        n_shot: number of solved examples in the prompt of a task; None for the task's own.
    """

    targets: tuple[Target, ...]
    on: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    limit: int | None = None
    max_new_tokens: int = MAX_NEW_TOKENS
    dataset_dir: str | None = None
    code: str | None = None
    again: bool = False
    tasks: tuple[str, ...] = ()
    n_shot: int | None = None
    seed: int = SHOTS_SEED
    hub: bool = False
    judge: Judge | None = None

    @property
    def generates(self) -> bool:
        """Whether the targets answer the prompts of the data."""
        return bool(self.metrics) or self.judge is not None

    def json(self) -> str:
        """One line of JSON, the argument of the process that measures."""
        return json.dumps(asdict(self), ensure_ascii=False)  # shorter: an argument has at most 128 KiB

    @classmethod
    def read(cls, text: str) -> EvaluationRequest:
        """The request that `json` wrote."""
        given: dict[str, Any] = json.loads(text)
        targets = tuple(Target(**one) for one in given.pop("targets"))
        on, metrics, tasks = (tuple(given.pop(name)) for name in ("on", "metrics", "tasks"))
        judge = Judge.read(given.pop("judge"))
        return cls(targets, on, metrics, tasks=tasks, judge=judge, **given)
