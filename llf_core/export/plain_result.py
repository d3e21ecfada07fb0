from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PlainResult:
    """What plain transformers computed with an export, as in `Reference`.

    Attributes:
        error: why it could not be loaded or computed; empty if it could.
        missing: names of weights that the files lack.
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
