"""LongLoRA's shifted sparse attention while training (arXiv 2309.12307); the model itself is not changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.acceleration.patching.attention_backend import GROUP
from llf_core.config.declarations.modifiers import ShiftAttnOptions
from llf_core.models.errors import ModelError
from llf_core.modifiers.modifier import Modifier

if TYPE_CHECKING:
    from torch import nn

SHARE = 4
"""Groups of a context of `cutoff_len` tokens, as in LongLoRA and LLaMA-Factory."""


class ShiftAttn(Modifier):
    """Sets the group size on the attention layers; `acceleration.kernels.shifted_attention` computes it."""

    def apply(self, model: nn.Module) -> None:
        """Set the group size in tokens on the attention layers: `shift_attn_group`, else a quarter of `cutoff_len`.

        Raises:
            ModelError: the model has no attention layers (with `layer_idx` and `is_causal`).
        """
        group = self.config.options(ShiftAttnOptions).shift_attn_group or self.config.data.cutoff_len // SHARE
        layers = [module for module in model.modules() if hasattr(module, "layer_idx") and hasattr(module, "is_causal")]
        if not layers:
            raise ModelError(
                f"{type(model).__name__} has no attention layers that shift_attn knows. Set shift_attn to false."
            )
        for layer in layers:
            setattr(layer, GROUP, max(2, group))

    def remove(self, model: nn.Module) -> None:
        """Have all layers attend to whole documents again, as evaluation and the saved model do."""
        for module in model.modules():
            vars(module).pop(GROUP, None)
