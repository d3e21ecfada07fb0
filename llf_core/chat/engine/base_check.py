"""Checks that loading an adapter does not change the base model's own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


class BaseWeights:
    """Snapshot of the base model's weights: torch's counter of in-place changes, and their place in memory."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = [
            (name, weight, weight.data_ptr(), _version(weight), weight.requires_grad)
            for name, weight in model.named_parameters()
        ]

    def changed(self) -> str | None:
        """Name of the first weight that was changed or moved since."""
        for name, weight, place, version, _ in self._weights:
            if (weight.data_ptr(), _version(weight)) != (place, version):
                return name
        return None

    def restore_flags(self) -> None:
        """Restore `requires_grad` of each weight, since PEFT freezes a base."""
        for _, weight, _, _, trained in self._weights:
            weight.requires_grad_(trained)


def _version(weight: nn.Parameter) -> int:
    return 0 if weight.is_inference() else weight._version  # noqa: SLF001 - torch's counter of in-place changes
