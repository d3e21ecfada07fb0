"""Frozen auxiliary models: reference models and teachers."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from llf_core.acceleration.patching.install import accelerate
from llf_core.methods.method import apply_method
from llf_core.models import ModelError, load_model, load_tokenizer, resolve_model
from llf_core.models.adapter_merging import continues_adapter, load_frozen_adapters
from llf_core.models.quantize import UNQUANTIZED
from llf_core.modifiers.modifier import change_before_method

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.stages.base.context import TrainingContext


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
