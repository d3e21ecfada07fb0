"""Shared setup of the methods that train a PEFT adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.methods.trained_precision import keep_trained_weights_exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft import PeftModel
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig


def begin_adapter(model: PreTrainedModel, config: RunConfig, make: Callable[[PreTrainedModel], PeftModel]) -> PeftModel:
    """Add a new adapter, or continue the last one in `adapter_name_or_path`; merge those before it.

    Args:
        model: a `PreTrainedModel`, all parameters as they were loaded.
        config: the run's config.
        make: given the model with frozen weights, wraps it with a new adapter.

    Returns:
        A `PeftModel` whose trained parameters are float32 unless `pure_bf16`.

    Raises:
        ModelError: an adapter that does not fit.
    """
    from llf_core.models.adapter_loading import continues_adapter, load_adapter, merge_adapters

    model.requires_grad_(requires_grad=False)
    adapters = list(config.model.adapter_name_or_path or ())
    resumed = adapters.pop() if continues_adapter(config) else None
    model = merge_adapters(model, adapters, config)
    wrapped = make(model) if resumed is None else load_adapter(model, resumed, config, trainable=True)
    keep_trained_weights_exact(wrapped, config)
    return wrapped
