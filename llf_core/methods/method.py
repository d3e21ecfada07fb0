"""The base class of the methods: which parameters of a model are trained, and their precision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of, optimizer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.optimizers.optimizer import ParameterGroup


class Method(ABC):
    """Base class of fine-tuning methods; declared by a `llf_core.config.declaration.MethodDeclaration`."""

    sample: Callable[[], Iterator[dict[str, Tensor]]] | None = None
    """Some examples of the training data, one a batch of tensors `[1, tokens]`; set before `apply`.

    None without data, and for streamed data.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def apply(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        """Set which parameters are trained.

        A method whose declaration is an `adapter` begins with `llf_core.methods.peft_tuner.begin_adapter`, which
        continues an adapter of `adapter_name_or_path`.

        Returns:
            The model, or the PEFT model around it, with `requires_grad` set on every parameter.
        """

    def after_backward(self, scale: float = 1.0) -> None:  # noqa: B027 - a hook that not all need
        """Change the complete gradients of an optimizer step before they are clipped, such as adding a penalty.

        Args:
            scale: factor of the gradients under loss scaling (fp16); 1 without.
        """

    def after_step(self, step: int, total: int) -> None:  # noqa: B027 - a hook that not all need
        """Act after the optimizer has changed the weights, such as pruning ranks; the gradients are still there.

        Args:
            step: number of the step, from 1.
        """

    def parameter_groups(self, model: nn.Module, groups: list[ParameterGroup]) -> list[ParameterGroup]:  # noqa: ARG002
        """Divide the trained parameters into groups with learning rates of their own. By default nothing changes.

        Args:
            groups: the trained parameters: those with weight decay, and norms and biases without.

        Returns:
            The same parameters, perhaps in more groups. A group with its own learning rate has it as `lr`; the
                others get that of the config.
        """
        return groups

    def finish(self) -> None:  # noqa: B027 - a hook that not all need
        """Change the trained model, which `apply` returned, before its result is written for other libraries."""

    def state(self) -> dict[str, Tensor]:
        """State of a checkpoint beside the trained weights, as tensors of any shape by name. Default: nothing."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - a hook that not all need
        """Restore the result of `state`, tensors of any shape by name."""


def make_method(config: RunConfig) -> Method:
    """Create the method that `finetuning_type` selects."""
    return method_of(config).load(Method)(config)


def apply_method(model: PreTrainedModel, config: RunConfig) -> PreTrainedModel | PeftModel:
    """Apply the method that `finetuning_type` selects, for callers that need none of its hooks."""
    return make_method(config).apply(model)


def keep_trained_weights_exact(model: nn.Module, config: RunConfig) -> None:
    """Cast every trainable parameter to float32, or to bfloat16 with `pure_bf16`, unless the optimizer `keeps_masters`.

    bfloat16 has 8 significant bits, so an update below about 1/256 of a weight would be lost. Autocast computes in
    the plan's dtype.
    """
    import torch

    if optimizer_of(config).keeps_masters:
        return
    dtype = torch.bfloat16 if config.get("pure_bf16") else torch.float32
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
