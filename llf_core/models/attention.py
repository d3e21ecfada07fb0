from __future__ import annotations

from llf_core.models.errors import ModelError


def attention_name(flash_attn: str) -> str | None:
    """Translate LLaMA-Factory's `flash_attn` to transformers' `attn_implementation`.

    None for `auto`: transformers then uses `sdpa` where the architecture supports it, else eager attention.

    Raises:
        ModelError: the kernels are not installed.
    """
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    if flash_attn == "fa2" and not is_flash_attn_2_available():
        raise ModelError(
            "flash_attn: fa2 needs a CUDA GPU and the package flash-attn; at least one of them is missing. "
            "Use flash_attn: auto, which uses the fused attention of PyTorch."
        )
    if flash_attn == "fa3" and not is_flash_attn_3_available():
        raise ModelError(
            "flash_attn: fa3 needs a Hopper GPU and FlashAttention 3; at least one of them is missing. "
            "Use flash_attn: auto, which uses the fused attention of PyTorch."
        )
    names = {"disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2", "fa3": "flash_attention_3"}
    return names.get(flash_attn)
