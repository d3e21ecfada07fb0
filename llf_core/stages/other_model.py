"""A second model beside the one in training, which it is compared with or learns from; it stays as it is."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from llf_core.fast.install import accelerate
from llf_core.models import ModelError, load_model, resolve_model
from llf_core.models.adapters import merge_adapters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from llf_core.stages.work import Work


def load_other(work: Work, what: str, name: str, adapters: Sequence[str], bits: int | None) -> Any:
    """Loads a model that reads the same batches as the one in training.

    Args:
        work: of the attempt.
        what: the key that names it, for messages.
        name: of the model.
        adapters: merged into it, one after the other.
        bits: 4 or 8, to quantize it.

    Returns:
        The model in evaluation mode, on the device of the one in training; nothing in it is trained.

    Raises:
        ModelError: it cannot be loaded, has another vocabulary, or cannot read batches without padding.
    """
    config = work.config.replace(
        model_name_or_path=name, adapter_name_or_path=None, create_new_adapter=None, quantization_bit=bits
    )
    source = resolve_model(name, config)
    model: Any = merge_adapters(load_model(source, config, work.plan), adapters, config)
    own, other = (one.get_input_embeddings().weight.shape[0] for one in (work.model, model))
    if own != other:
        raise ModelError(
            f"The model {name} of {what} knows {other:,} tokens, and the one in training {own:,}: they have other "
            "tokenizers. Expected a model of the same family."
        )
    model.requires_grad_(requires_grad=False)
    if work.flattens:
        found = accelerate(model)
        if not found.flattens or (work.forks and not found.forks):
            raise ModelError(
                f"The model {name} of {what} cannot read batches as the one in training does: "
                f"{found.why or 'documents in it have no branches.'} Set fast_path to false."
            )
    return model.eval().to(work.model.device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; parts that were training go back to it."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def computing(work: Work) -> Any:
    """The precision that the Trainer computes a forward in."""
    plan = work.plan
    return nullcontext() if plan.autocast is None else torch.autocast(plan.device, getattr(torch, plan.autocast))
