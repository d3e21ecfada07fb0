"""Frozen auxiliary models: a teacher, or the reference of a policy, which may be itself before its first step."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from llf_core.acceleration.patching.install import accelerate
from llf_core.config.rules.conditions import names_reference
from llf_core.methods.method import apply_method
from llf_core.models import ModelError, load_model, load_tokenizer, resolve_model
from llf_core.models.adapter_merging import continues_adapter, load_frozen_adapters
from llf_core.models.checksums import DEFAULT_ADAPTER
from llf_core.models.quantize import UNQUANTIZED
from llf_core.modifiers.modifier import change_before_method

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.config import RunConfig
    from llf_core.stages.base.context import TrainingContext

NAME = "reference"


@dataclass(frozen=True)
class ReferencePolicy:
    """Reference model that is evaluated in every step, with `adapter` active."""

    model: PreTrainedModel
    is_policy: bool = False
    adapter: str | None = None

    @contextmanager
    def active(self) -> Iterator[PreTrainedModel]:
        """Context manager: the reference model in evaluation mode; restores the policy's adapters afterwards."""
        with use_adapter(self.model, self.adapter) if self.is_policy else nullcontext(), eval_mode(self.model):
            yield self.model


def reference_policy(context: TrainingContext, *, shares: bool = True) -> ReferencePolicy:
    """Create the reference model of a run, before the first step.

    If an adapter is trained, the policy is the reference: a new adapter is disabled, and one that is trained further
    gets a frozen copy. Other methods, a reference that the config names, or not `shares` need a second model.
    """
    policy: PeftModel = context.model
    if names_reference(context.config):
        return ReferencePolicy(named_reference(context))
    if not shares or not hasattr(policy, "disable_adapter"):
        return ReferencePolicy(load_unchanged(context))
    if continues_adapter(context.config):
        add_frozen_copy(policy)
        return ReferencePolicy(policy, is_policy=True, adapter=NAME)
    return ReferencePolicy(policy, is_policy=True)


def named_reference(context: TrainingContext) -> PreTrainedModel:
    """Load the model that the config names as the reference, frozen."""
    bits = context.config.get("ref_model_quantization_bit")
    return load_auxiliary(context, "ref_model", model_name(context.config), adapter_names(context.config), bits)


def model_name(config: RunConfig) -> str:
    """Name of the reference model: `ref_model`, or the model that the run starts from."""
    return str(config.get("ref_model") or config.model.model_name_or_path)


def adapter_names(config: RunConfig) -> list[str]:
    """Adapters of the reference: `ref_model_adapters`, else the run's initial ones if there is no `ref_model`."""
    own = config.model.adapter_name_or_path if config.get("ref_model") is None else None
    named = config.get("ref_model_adapters")
    return list((own if named is None else named) or ())


def add_frozen_copy(policy: PeftModel) -> None:
    """Add a frozen copy of the trained adapter, bitwise equal, as the reference of a policy that is trained further."""
    from peft import get_peft_model_state_dict

    weights = {
        key: value.clone() for key, value in get_peft_model_state_dict(policy, adapter_name=DEFAULT_ADAPTER).items()
    }
    add_frozen(policy, NAME, deepcopy(policy.peft_config[DEFAULT_ADAPTER]), weights)
    own = dict(policy.named_parameters())
    for name, parameter in own.items():
        if f".{NAME}." in name or name.endswith(f".{NAME}"):
            # PEFT creates fully trained modules in the dtype of the base.
            parameter.data = own[f".{DEFAULT_ADAPTER}".join(name.rsplit(f".{NAME}", 1))].detach().clone()


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


def load_auxiliary(
    context: TrainingContext, what: str, name: str, adapters: Sequence[str], bits: int | None
) -> PreTrainedModel:
    """Load a frozen model beside the trained one, in evaluation mode: a reference model or a teacher.

    Args:
        what: config key that names the model. If it has no value, the model is the one that the run starts from,
            with random weights under `train_from_scratch`.
        adapters: merged into it in order; a single one is kept separate if the model is quantized.
        bits: 4 or 8 for a quantized model; None for the precision of the run.
    """
    config = context.config.replace(
        model_name_or_path=name,
        adapter_name_or_path=None,
        create_new_adapter=None,
        lora_init=None,
        train_from_scratch=context.config.model.train_from_scratch and context.config.get(what) is None,
        **{**UNQUANTIZED, "quantization_bit": bits},
    )
    source = resolve_model(name, config)
    check_tokens(context, load_tokenizer(source, config), f"The model {name} of {what}")
    model = load_frozen_adapters(load_model(source, config, context.plan), adapters, config)
    return _freeze_auxiliary(model, context, f"The model {name} of {what}").to(context.model.device)


def load_unchanged(context: TrainingContext) -> PreTrainedModel:
    """Load the trained model's initial weights again, frozen, as reference of methods that change them in place."""
    with torch.random.fork_rng():
        unchanged = load_model(context.source, context.config, context.plan)
        change_before_method(unchanged, context.config)
        unchanged = apply_method(unchanged, context.config)
    if hasattr(unchanged, "unload") and not continues_adapter(context.config):
        unchanged = unchanged.unload()  # a new adapter changes nothing yet
    return _freeze_auxiliary(unchanged, context, "The model before its first step")


def _freeze_auxiliary(model: PreTrainedModel, context: TrainingContext, called: str) -> PreTrainedModel:
    model.requires_grad_(requires_grad=False)
    model.eval()
    accelerate_like(model, context, called)
    return model


def accelerate_like(model: PreTrainedModel, context: TrainingContext, called: str) -> None:
    """Patch a model like the trained one, whose batches it reads; ModelError if it does not support them."""
    if context.flattens:
        found = accelerate(model, attention=context.config.model.flash_attn != "disabled")
        if not found.flattens or (context.forks and not found.forks):
            raise ModelError(
                f"{called} does not support the batches of the policy: "
                f"{found.why or 'documents in it have no branches.'} Set fast_path to false."
            )


def check_tokens(context: TrainingContext, tokenizer: PreTrainedTokenizerBase, called: str) -> None:
    """Check that a model has the run's tokenizer; ModelError if the vocabularies differ."""
    if tokenizer.get_vocab() != context.tokenizer.get_vocab():
        raise ModelError(
            f"{called} has a different tokenizer than {context.config.model.model_name_or_path}: it knows "
            f"{len(tokenizer):,} tokens, the trained model {len(context.tokenizer):,}, and they do not agree. "
            "Expected a model of the same family."
        )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Context manager: the model in evaluation mode; restores the training mode of each module."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def autocast(context: TrainingContext) -> AbstractContextManager[object]:
    """Context manager: autocast in the precision of the training forward pass."""
    plan = context.plan
    return nullcontext() if plan.autocast is None else torch.autocast(plan.device, getattr(torch, plan.autocast))
