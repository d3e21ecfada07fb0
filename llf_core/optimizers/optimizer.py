"""The base class of the optimizers that plug-ins build."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from llf_core.config.registry import base_optimizer_of, optimizer_of
from llf_core.config.rules.optimization import install_command, missing_packages
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from llf_core.config import RunConfig


class OptimizerError(UserError, ValueError):
    """An optimizer cannot train a model as configured."""

    exit_code = BAD_CONFIG


class ParameterGroup(TypedDict):
    """Parameter group of `torch.optim` with one weight decay, and a learning rate where it has its own."""

    params: list[nn.Parameter]
    weight_decay: float
    lr: NotRequired[float]


class Optimizer(ABC):
    """Base class of optimizers; declared by a `llf_core.config.declaration.OptimizerDeclaration`."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer of a run.

        All state that a resumed run needs is in the `state_dict` of the result, as tensors, numbers, strings and
        lists. `PerParameterOptimizer` is a base class that can update in the backward pass.

        Args:
            model: the model under training, for optimizers that treat its layers differently.
            groups: the trained parameters: those with weight decay, and norms and biases without.
        """

    @property
    def base(self) -> str:
        """Name of the optimizer that this one is built on."""
        return base_optimizer_of(self.config).name

    @property
    def layerwise(self) -> bool:
        """Whether each parameter is updated in the backward pass and its gradient freed."""
        return optimizer_of(self.config).layerwise(self.config)

    @property
    def adam(self) -> dict[str, Any]:
        """`lr`, `betas` and `eps` of the config, named as in groups of `torch.optim.AdamW`."""
        options = self.config.optimizer
        return {
            "lr": options.learning_rate,
            "betas": (options.adam_beta1, options.adam_beta2),
            "eps": options.adam_epsilon,
        }


def build_optimizer(model: nn.Module, config: RunConfig, groups: list[ParameterGroup]) -> torch.optim.Optimizer | None:
    """Build the optimizer that a config selects; None where transformers builds it by its name.

    It may change the model and the groups, see `Optimizer.build`.

    Raises:
        OptimizerError: it cannot train this model, or not in several processes, or a package is missing.
    """
    declaration = optimizer_of(config)
    check_packages(config)
    trained = {name: tuple(one.shape) for name, one in model.named_parameters() if one.requires_grad}
    problem = declaration.check_shapes(config, trained) if declaration.check_shapes else None
    if problem is not None:
        raise OptimizerError(problem.message)
    alone = declaration.layerwise(config) or declaration.one_process(config)
    if alone and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptimizerError(
            f"{declaration.label} does not train in several processes as configured: they would update different "
            "weights, or update them before their gradients are added up. Expected one process, or another optimizer."
        )
    return declaration.load(Optimizer)(config).build(model, groups) if declaration.implementation else None


def check_packages(config: RunConfig) -> None:
    """Check the packages of the selected optimizer; OptimizerError has the command to install a missing one."""
    if missing := missing_packages(config):
        raise OptimizerError(f"{optimizer_of(config).label} needs {missing[0]}.", install_command(config))


def names_of(model: nn.Module) -> Mapping[nn.Parameter, str]:
    """Name of each parameter of a model."""
    return {parameter: name for name, parameter in model.named_parameters()}


def split_groups(
    groups: list[ParameterGroup], chosen: set[nn.Parameter], settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Split each group into the chosen parameters, with further settings, and the others."""
    split: list[dict[str, object]] = []
    for group in groups:
        for own, more in ((False, {}), (True, settings)):
            members = [one for one in group["params"] if (one in chosen) == own]
            if members:
                split.append({**group, "params": members, **more})
    return split
