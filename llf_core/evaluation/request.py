"""What an evaluation is asked for, as its process gets it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from llf_core.chat.target import Target

MAX_NEW_TOKENS = 256
"""Default of the maximum number of tokens of an answer."""
VALIDATION = "validation"
"""Name of a run's own validation data."""


@dataclass(frozen=True)
class EvaluationRequest:
    """An evaluation.

    Attributes:
        targets: what is measured.
        on: names of data sets; or `validation` alone, the validation data of the first target that is a run.
        metrics: names of metrics of generated answers; empty to measure losses alone.
        limit: maximum number of examples of each data set, taken from the beginning; None for all.
        max_new_tokens: maximum number of tokens of an answer.
        dataset_dir: folder of named data sets; None for that of the run.
        code: folder with the source of metrics that are functions; None for none.
        again: whether targets are measured again that have a result already.
    """

    targets: tuple[Target, ...]
    on: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    limit: int | None = None
    max_new_tokens: int = MAX_NEW_TOKENS
    dataset_dir: str | None = None
    code: str | None = None
    again: bool = False

    def json(self) -> str:
        """The request as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> EvaluationRequest:
        """The request that `json` wrote.

        Args:
            text: its JSON.

        Raises:
            ValueError, TypeError, RecursionError: it is not one.
        """
        given: dict[str, Any] = json.loads(text)
        targets = tuple(Target(**one) for one in given.pop("targets"))
        return cls(targets, tuple(given.pop("on")), tuple(given.pop("metrics")), **given)
