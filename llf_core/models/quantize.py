"""Frozen weights in 4 or 8 bits by bitsandbytes, on CPU and GPU (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

    from llf_core.config import RunConfig
    from llf_core.models.device import DevicePlan


def quantization(config: RunConfig, plan: DevicePlan) -> BitsAndBytesConfig | None:
    """What `from_pretrained` needs to quantize while it loads; None where nothing is quantized.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    bits = config.model.quantization_bit
    if bits is None:
        return None
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantization_bit: {bits} needs bitsandbytes, which this environment lacks. "
            "Run pip install bitsandbytes, or leave quantization_bit out."
        )
    from transformers import BitsAndBytesConfig

    if bits == 8:  # noqa: PLR2004 - the key's value
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.model.quantization_type,
        bnb_4bit_use_double_quant=config.model.double_quantization,
        bnb_4bit_compute_dtype=plan.torch_dtype,
    )
