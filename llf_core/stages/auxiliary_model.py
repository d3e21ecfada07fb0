"""A second model beside the one in training, which it is compared with or learns from; it stays as it is."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from llf_core.acceleration.patching.install import accelerate
from llf_core.methods.method import apply_method
from llf_core.models import ModelError, load_model, load_tokenizer, resolve_model
from llf_core.models.adapter_loading import continues_adapter, load_frozen_adapters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.stages.base.context import TrainingContext


def load_auxiliary(
    context: TrainingContext, what: str, name: str, adapters: Sequence[str], bits: int | None
) -> PreTrainedModel:
    """Loads a model that reads the same batches as the one in training.

    Args:
        context: of the attempt.
        what: the key that names it, for messages.
        name: of the model.
        adapters: merged into it, one after the other; put on where it is quantized and there is but one.
        bits: 4 or 8, to quantize it.

    Returns:
        The model in evaluation mode, on the device of the one in training; nothing in it is trained.

    Raises:
        ModelError: it cannot be loaded, has another tokenizer, or cannot read batches as the other one does.
    """
    config = context.config.replace(
        model_name_or_path=name, adapter_name_or_path=None, create_new_adapter=None, quantization_bit=bits
    )
    source = resolve_model(name, config)
    check_tokens(context, load_tokenizer(source, config), f"The model {name} of {what}")
    model = load_frozen_adapters(load_model(source, config, context.plan), adapters, config)
    return freeze_auxiliary(model, context, f"The model {name} of {what}").to(context.model.device)


def load_unchanged(context: TrainingContext) -> PreTrainedModel:
    """The model in training before its first step, a second time and frozen.

    Args:
        context: of the attempt; its model has not made a step, nor been given a checkpoint's weights.
    """
    with torch.random.fork_rng():
        unchanged = apply_method(load_model(context.source, context.config, context.plan), context.config)
    if hasattr(unchanged, "unload") and not continues_adapter(context.config):
        unchanged = unchanged.unload()  # a new adapter changes nothing yet
    return freeze_auxiliary(unchanged, context, "The model before its first step")


def freeze_auxiliary(model: PreTrainedModel, context: TrainingContext, called: str) -> PreTrainedModel:
    """A model that is given the same batches as the one in training, in evaluation mode; nothing in it is trained.

    Raises:
        ModelError: it cannot read them, with what it is `called`.
    """
    model.requires_grad_(requires_grad=False)
    model.eval()
    accelerate_like(model, context, called)
    return model


def accelerate_like(model: PreTrainedModel, context: TrainingContext, called: str) -> None:
    """Puts a model on the fast path as far as the one in training is, which it shares batches with.

    Raises:
        ModelError: it cannot read them, with what it is `called`.
    """
    if context.flattens:
        found = accelerate(model, attention=context.config.model.flash_attn != "disabled")
        if not found.flattens or (context.forks and not found.forks):
            raise ModelError(
                f"{called} does not support the batches of the policy: "
                f"{found.why or 'documents in it have no branches.'} Set fast_path to false."
            )


def check_tokens(context: TrainingContext, tokenizer: PreTrainedTokenizerBase, called: str) -> None:
    """Refuses a model for which the run's token ids are other words.

    Raises:
        ModelError: with what the model is `called`.
    """
    if tokenizer.get_vocab() != context.tokenizer.get_vocab():
        raise ModelError(
            f"{called} has a different tokenizer than {context.config.model.model_name_or_path}: it knows "
            f"{len(tokenizer):,} tokens, the trained model {len(context.tokenizer):,}, and they do not agree. "
            "Expected a model of the same family."
        )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; parts that were training go back to it."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def autocast(context: TrainingContext) -> AbstractContextManager[object]:
    """The precision that the Trainer computes a forward in."""
    plan = context.plan
    return nullcontext() if plan.autocast is None else torch.autocast(plan.device, getattr(torch, plan.autocast))
