"""The base class of the modifiers: changes to a loaded model beside its method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from llf_core.config.registry import modifiers_of

if TYPE_CHECKING:
    from torch import nn

    from llf_core.config import RunConfig


class Modifier(ABC):
    """A change to the loaded model; declared by a `llf_core.config.declaration.ModifierDeclaration`.

    Args:
        config: the run's config.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Change the model in place, after its method and before the fast path.

        Args:
            model: a causal language model, perhaps wrapped by PEFT.
        """

    def remove(self, model: nn.Module) -> None:  # noqa: B027 - a hook that not all need
        """Undo what must not be saved with the model, before the result is written. Default: nothing."""


def apply_modifiers(model: nn.Module, config: RunConfig) -> tuple[Modifier, ...]:
    """Apply the modifiers that the config selects, in the order of their names.

    Args:
        model: changed in place.
        config: selects the modifiers.

    Returns:
        The modifiers, so that they can be removed.
    """
    modifiers = tuple(one.load(Modifier)(config) for one in modifiers_of(config))
    for modifier in modifiers:
        modifier.apply(model)
    return modifiers
