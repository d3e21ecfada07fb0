"""Sampled completions that later steps still learn from, which a checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Rollout:
    """Completions of a checkpoint that the steps after it still learn from.

    Attributes:
        inputs: for each batch tensors `[completions, …]` and scalars by name, as TRL's trainer buffers them.
    """

    inputs: list[dict[str, Any]] | None = None

    def take(self) -> list[dict[str, Any]] | None:
        """Return the inputs and clear them, so that the trainer has the only copy of the tensors."""
        inputs, self.inputs = self.inputs, None
        return inputs
