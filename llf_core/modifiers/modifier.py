"""The base class of the modifiers: changes to a loaded model beside its method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.registry import modifiers_of
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig


@dataclass(frozen=True)
class ExtraLoss:
    """A modifier's addition to the loss of a training step.

    Attributes:
        total: scalar with a graph, summed over the tokens of the micro-batch.
        measures: by name of a metric, its sum and the number of values, detached scalars `[]`.
    """

    total: Tensor
    measures: Mapping[str, tuple[Tensor, Tensor]]


class Modifier(ABC):
    """A change to the loaded model; declared by a `llf_core.config.declaration.ModifierDeclaration`."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def before_method(self, model: PreTrainedModel) -> None:  # noqa: B027 - a hook that not all need
        """Change the loaded model in place, before its method selects what is trained. Default: nothing.

        Called for the model in training, and for a second copy of it that is compared with it. A resumed run calls
        it before it loads its checkpoint, so it must do the same each time. It is called on a separate object:
        attributes that it sets are not there in `apply`.
        """

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Change the model in place, after its method and before the fast path.

        Args:
            model: a causal language model, perhaps wrapped by PEFT.
        """

    def extra_loss(self) -> ExtraLoss | None:
        """Addition to the loss of the last training forward pass; called before its backward pass. Default: None.

        The trainer divides it by the tokens of the whole optimizer step. The logged loss does not include it.
        """
        return None

    def remove(self, model: nn.Module) -> None:  # noqa: B027 - a hook that not all need
        """Undo what must not be saved with the model, before the result is written. Default: nothing."""


def check_flattened(config: RunConfig, *, flattens: bool, why: str) -> None:
    """Refuse a modifier that needs flattened batches for a model that needs padding; ModelError gives `why`."""
    padded = [] if flattens else [one.switch for one in modifiers_of(config) if one.flattened]
    if padded:
        raise ModelError(f"{padded[0]} needs batches without padding. {why} Set {padded[0]} to false.")


def change_before_method(model: PreTrainedModel, config: RunConfig) -> None:
    """Call `before_method` of the modifiers that the config selects."""
    for one in modifiers_of(config):
        one.load(Modifier)(config).before_method(model)


def apply_modifiers(model: nn.Module, config: RunConfig) -> tuple[Modifier, ...]:
    """Apply the modifiers that the config selects, in the fixed order of `modifiers_of`."""
    modifiers = tuple(one.load(Modifier)(config) for one in modifiers_of(config))
    for modifier in modifiers:
        modifier.apply(model)
    return modifiers
