"""The base class of the optimizers that plug-ins build."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypedDict

from llf_core.config.registry import optimizer_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from llf_core.config import RunConfig


class ParameterGroup(TypedDict):
    """Parameter group of `torch.optim` with one weight decay."""

    params: list[nn.Parameter]
    weight_decay: float


class Optimizer(ABC):
    """Base class of optimizers; declared by a `llf_core.config.declaration.OptimizerDeclaration`.

    Args:
        config: the run's config; `config.optimizer` has the learning rate, betas and epsilon.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer of a run.

        Args:
            model: the model under training, for optimizers that treat its layers differently.
            groups: the trained parameters: those with weight decay, and norms and biases without.
        """


def build_optimizer(model: nn.Module, config: RunConfig, groups: list[ParameterGroup]) -> torch.optim.Optimizer | None:
    """Build the optimizer that a config selects.

    Args:
        model: the model under training.
        config: the run's config.
        groups: the trained parameters, see `Optimizer.build`.

    Returns:
        The optimizer; None where transformers builds it by its name.
    """
    declaration = optimizer_of(config)
    return declaration.load(Optimizer)(config).build(model, groups) if declaration.implementation else None
