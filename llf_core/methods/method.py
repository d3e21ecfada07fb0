"""The base class of the methods: which parameters of a model are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig


class Method(ABC):
    """Base class of fine-tuning methods; declared by a `llf_core.config.declaration.MethodDeclaration`.

    Args:
        config: the run's config.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def apply(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        """Set which parameters are trained.

        A method whose declaration is an `adapter` begins with `llf_core.methods.peft_adapter.begin_adapter`, which
        continues with an adapter of `adapter_name_or_path` where there is one.

        Args:
            model: all parameters as they were loaded.

        Returns:
            The model, or the PEFT model around it, with `requires_grad` set on every parameter.

        Raises:
            ModelError: the method does not fit the model.
        """


def apply_method(model: PreTrainedModel, config: RunConfig) -> PreTrainedModel | PeftModel:
    """Apply the fine-tuning method that the config selects, see `Method.apply`.

    Args:
        model: the base model.
        config: selects the method with `finetuning_type`.

    Returns:
        The model with its trainable parameters.
    """
    return method_of(config).load(Method)(config).apply(model)
