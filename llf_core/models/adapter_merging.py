"""Merges adapters into the weights of their base model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.models.adapter_loading import load_adapter
from llf_core.models.checksums import is_packed
from llf_core.models.errors import ModelError
from llf_core.models.memory import is_out_of_memory
from llf_core.models.quantize import is_quantized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig

NOT_MERGEABLE = (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""Errors of PEFT for an adapter that it cannot merge. An error of memory is one of them."""


def merge_adapters(model: PreTrainedModel, names: Sequence[str], config: RunConfig) -> PreTrainedModel:
    """Merge adapters in their order into the weights of an unquantized model, so that a new one can be trained on top.

    The model is changed in place. Its attribute `llf_merged` lists the adapters, so that it is not taken for its base.

    Raises:
        ModelError: an adapter cannot be merged, or the model is quantized.
    """
    if names and is_quantized(model):
        raise ModelError(
            f"{names[0]} cannot be merged into a quantized model without loss. Give only one adapter, or remove "
            "quantization_bit."
        )
    for name in names:
        wrapped = load_adapter(model, name, config)
        try:
            model = wrapped.merge_and_unload()
        except NOT_MERGEABLE as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"{name} cannot be merged into its base: adapters of the type "
                f"{wrapped.active_peft_config.peft_type.value} with its options stay separate from it. Give it as the "
                "only adapter, without create_new_adapter."
            ) from error
    if names:
        model.llf_merged = list(names)
    return model


def continues_adapter(config: RunConfig) -> bool:
    """Whether the run continues to train an existing adapter, instead of merging it and making a new one.

    Disabling the adapter then gives the base, not the model that the run started from.
    """
    return bool(config.model.adapter_name_or_path) and not config.get("create_new_adapter")


def load_frozen_adapters(
    model: PreTrainedModel, names: Sequence[str], config: RunConfig
) -> PreTrainedModel | PeftModel:
    """Load frozen adapters, as of a reference model: merged, or the only one kept apart if the model is quantized."""
    if len(names) == 1 and is_quantized(model):
        return load_adapter(model, names[0], config)
    return merge_adapters(model, names, config)


def can_merge(model: Any) -> bool:
    """Whether PEFT can merge a model's adapter into its weights, tried on one layer unless that is quantized."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if model.active_peft_config.is_prompt_learning or not hasattr(model.base_model, "merge_and_unload"):
        return False
    layer = next((one for one in model.modules() if isinstance(one, BaseTunerLayer)), None)
    if layer is None:
        return False
    base = layer.get_base_layer()
    weight: Any = getattr(base, "weight", None)
    if weight is None or is_packed(weight):  # quantized layers are merged after they are loaded again
        return True
    # Adding and subtracting is not exact; an adapter may change the bias too.
    begun = [(parameter, parameter.detach().clone()) for parameter in base.parameters(recurse=False)]
    try:
        layer.merge()
        layer.unmerge()
    except NOT_MERGEABLE as error:
        if is_out_of_memory(error):
            raise
        return False
    finally:
        for parameter, values in begun:
            parameter.data.copy_(values)
    return True
