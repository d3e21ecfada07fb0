from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def cast_weights(model: Any, dtype: torch.dtype) -> None:
    """Cast the floating-point parameters of a model, in place, to measure what a file of that dtype will hold.

    Buffers, such as frequencies of rotary embeddings, keep their dtype, as do parameters that the model's class keeps
    in float32.
    """
    kept = [*(getattr(model, "_keep_in_fp32_modules", None) or ())]
    kept += getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not any(part in name.split(".") for part in kept):
            parameter.data = parameter.data.to(dtype)
