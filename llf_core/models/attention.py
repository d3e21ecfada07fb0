"""How attention is computed, from the config's word to transformers' name."""

from __future__ import annotations

from llf_core.models.errors import ModelError


def attention_name(asked: str) -> str | None:
    """What `attn_implementation` takes.

    Args:
        asked: `flash_attn`: `auto`, `disabled`, `sdpa`, `fa2` or `fa3`.

    Returns:
        None for `auto`: transformers then takes `sdpa` where the architecture has it, else plain attention.

    Raises:
        ModelError: the kernels are not installed.
    """
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    if asked == "fa2" and not is_flash_attn_2_available():
        raise ModelError(
            "flash_attn: fa2 needs a CUDA GPU and the package flash-attn, which are not both here. "
            "Take flash_attn: auto, which uses PyTorch's own fused attention."
        )
    if asked == "fa3" and not is_flash_attn_3_available():
        raise ModelError(
            "flash_attn: fa3 needs a Hopper GPU and FlashAttention 3, which are not both here. "
            "Take flash_attn: auto, which uses PyTorch's own fused attention."
        )
    names = {"disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2", "fa3": "flash_attention_3"}
    return names.get(asked)
