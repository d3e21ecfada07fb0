"""Frozen adapters on the trained model: active for a while, never trained or saved."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from llf_core.models.checksums import DEFAULT_ADAPTER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peft import PeftConfig, PeftModel
    from torch import Tensor


def add_frozen(model: PeftModel, name: str, settings: PeftConfig, weights: Mapping[str, Tensor]) -> None:
    """Add a frozen adapter to a PEFT model, with weights by the names that PEFT saves them under.

    Raises:
        ValueError: the adapter has weights for which the model has no layer.
    """
    from peft import set_peft_model_state_dict

    before = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    training = model.training
    settings.inference_mode = True
    model.add_adapter(name, settings)
    result = set_peft_model_state_dict(model, dict(weights), adapter_name=name)
    model.set_adapter(DEFAULT_ADAPTER)
    for parameter in model.parameters():
        parameter.requires_grad_(before.get(id(parameter), False))
    model.train(training)
    if result.unexpected_keys:
        raise ValueError(f"{result.unexpected_keys[0]} and others have no place in the model.")
    save_policy_alone(model)


def save_policy_alone(model: PeftModel) -> None:
    """Make a PEFT model save its trained adapter only; PEFT would write each frozen one into every checkpoint too."""
    if "save_pretrained" not in vars(model):
        model.save_pretrained = partial(model.save_pretrained, selected_adapters=[DEFAULT_ADAPTER])


@contextmanager
def use_adapter(model: PeftModel, name: str | None) -> Iterator[None]:
    """Context manager: another adapter of a model is active; with None, no adapter.

    Afterwards the trained adapter is active again, with `requires_grad` of all parameters as before.
    """
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        if name is None:
            with model.disable_adapter():
                yield
        else:
            model.set_adapter(name, inference_mode=True)
            try:
                yield
            finally:
                model.set_adapter(DEFAULT_ADAPTER)
    finally:
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
