from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PlainResult:
    """What plain transformers computed with an export.

    Attributes:
        error: why it could not be loaded or computed; empty if it could.
        missing: names of weights that the files lack.
        template: source of the chat template.
        rendered: text of each of `CONVERSATIONS`; None for one that the template refuses.
        tokens: token ids of each of `TEXTS`.
        stops: token ids that end an answer.
        answers: token ids of the greedy answers.
    """

    by: str
    error: str
    missing: list[str]
    template: str | None
    rendered: list[str | None]
    tokens: list[list[int]]
    stops: list[int]
    answers: list[list[int]]
    logits: list[Tensor]
