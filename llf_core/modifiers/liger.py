"""Has liger-kernel compute the normalization layers and gated MLPs of a model (arXiv 2410.10989).

Liger's other kernels stay off: its rotary embeddings change transformers rather than the model, and its losses need
batches with padding. LLF's fast path skips modules whose forward another library has replaced, and compares the
whole model.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llf_core.modifiers.modifier import Modifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

NOT_USED = {"rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}
"""Liger's kernels that LLF's fast path replaces."""


class Liger(Modifier):
    """Applies Liger's kernels to the loaded model, if there are an NVIDIA GPU and the package."""

    def before_method(self, model: PreTrainedModel) -> None:
        """Replace the forwards of the model's norms and MLPs, before adapters wrap their layers.

        Without an NVIDIA GPU or liger-kernel, a warning is logged and nothing changes, so that a config runs
        anywhere.
        """
        if model.device.type == "meta":  # only the parameters are counted, which stay the same
            return
        if model.device.type != "cuda" or find_spec("liger_kernel") is None:
            logger.warning("enable_liger_kernel: there is no NVIDIA GPU or no liger-kernel, so none is used.")
            return
        count = apply_liger(model)
        kind = model.config.model_type
        logger.info(f"Liger: {count} modules." if count else f"Liger has no kernels for models of the type {kind}.")

    def apply(self, model: nn.Module) -> None:
        """Do nothing: the model is changed before its method."""


def apply_liger(model: PreTrainedModel) -> int:
    """Apply Liger's kernels for norms and MLPs to a model on an NVIDIA GPU, in place.

    Liger also puts its classes into transformers' modules, which would affect later models; these are restored.

    Returns:
        Number of modules whose forward it replaced; 0 if Liger does not know the type of the model.
    """
    from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

    before = {module: vars(module).get("forward") for module in model.modules()}
    with _unchanged_transformers():
        _apply_liger_kernel_to_instance(model=model, **NOT_USED)
    return sum(vars(module).get("forward") is not forward for module, forward in before.items())


@contextmanager
def _unchanged_transformers() -> Iterator[None]:
    """Context manager: restores the namespaces of the modules of transformers' models."""
    modules = [module for name, module in sys.modules.items() if name.startswith("transformers.models.")]
    before = [(module, dict(vars(module))) for module in modules]
    try:
        yield
    finally:
        for module, names in before:
            vars(module).update(names)
