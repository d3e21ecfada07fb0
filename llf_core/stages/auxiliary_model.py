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
    """Load a frozen model that reads the same batches as the trained one: a reference model or a teacher.

    Args:
        what: config key that names the model, for messages. Without a value it is the model that the run starts from,
            whose weights are random with `train_from_scratch`; those of another one are read.
        adapters: merged into it, one after the other; a single one is kept separate if the model is quantized.
        bits: 4 or 8 for a quantized model; None for the precision of the run.

    Returns:
        The model in evaluation mode, on the device of the trained one; none of its parameters is trained.
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
    """Load the trained model's initial weights a second time, frozen, as its reference.

    Needed by methods that change the weights in place, since their initial state is gone after the first step.
    """
    with torch.random.fork_rng():
        unchanged = load_model(context.source, context.config, context.plan)
        change_before_method(unchanged, context.config)
        unchanged = apply_method(unchanged, context.config)
    if hasattr(unchanged, "unload") and not continues_adapter(context.config):
        unchanged = unchanged.unload()  # a new adapter changes nothing yet
    return _freeze_auxiliary(unchanged, context, "The model before its first step")


def _freeze_auxiliary(model: PreTrainedModel, context: TrainingContext, called: str) -> PreTrainedModel:
    """Freeze an auxiliary model and put it into evaluation mode, patched for the batches of the trained model.

    It reads the same batches as the trained model, so it needs the same attention, and no gradients or dropout.
    """
    model.requires_grad_(requires_grad=False)
    model.eval()
    accelerate_like(model, context, called)
    return model


def accelerate_like(model: PreTrainedModel, context: TrainingContext, called: str) -> None:
    """Patch a model with the fast forward wherever the trained model has it, since both read the same batches.

    Raises:
        ModelError: it does not support these batches.
    """
    if context.flattens:
        found = accelerate(model, attention=context.config.model.flash_attn != "disabled")
        if not found.flattens or (context.forks and not found.forks):
            raise ModelError(
                f"{called} does not support the batches of the policy: "
                f"{found.why or 'documents in it have no branches.'} Set fast_path to false."
            )


def check_tokens(context: TrainingContext, tokenizer: PreTrainedTokenizerBase, called: str) -> None:
    """Check that a model has the run's tokenizer: with other ids for the same text its outputs would be meaningless.

    Raises:
        ModelError: the vocabularies differ.
    """
    if tokenizer.get_vocab() != context.tokenizer.get_vocab():
        raise ModelError(
            f"{called} has a different tokenizer than {context.config.model.model_name_or_path}: it knows "
            f"{len(tokenizer):,} tokens, the trained model {len(context.tokenizer):,}, and they do not agree. "
            "Expected a model of the same family."
        )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Context manager: the model in evaluation mode, for the forward passes of a model that is otherwise trained.

    Restores the training mode of each module afterwards, since some may have been in evaluation mode before.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def autocast(context: TrainingContext) -> AbstractContextManager[object]:
    """Context manager: autocast in the precision of the training forward pass.

    Log-probabilities of the trained model and of the auxiliary one are then comparable.
    """
    plan = context.plan
    return nullcontext() if plan.autocast is None else torch.autocast(plan.device, getattr(torch, plan.autocast))
