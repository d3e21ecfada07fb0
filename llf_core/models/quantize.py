"""Quantizes frozen weights to 4 or 8 bits with bitsandbytes, on CPU and GPU (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError
from llf_core.models.free_memory import release_free_memory
from llf_core.models.parameter_count import count_parameters, expert_matrices, expert_parameters

if TYPE_CHECKING:
    from torch import nn
    from transformers import BitsAndBytesConfig

    from llf_core.config import RunConfig
    from llf_core.models.device import DevicePlan


def quantization_config(config: RunConfig, plan: DevicePlan) -> BitsAndBytesConfig | None:
    """Quantization config for `from_pretrained`: LLM.int8() (arXiv 2208.07339) or QLoRA's 4 bits (arXiv 2305.14314).

    Quantized frozen weights take a half or a quarter of the memory of 16-bit ones.

    Args:
        config: for `quantization_bit` and its options.
        plan: for the compute dtype.

    Returns:
        The config; None if the model is not quantized.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    bits = config.model.quantization_bit
    if bits is None:
        return None
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantization_bit: {bits} needs bitsandbytes, which is not installed. "
            "Run pip install bitsandbytes, or remove quantization_bit."
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


def keep_differentiable(model: nn.Module) -> None:
    """Keep a quantized model differentiable on a CPU, and silence a log line per layer.

    On CPUs with AVX512-BF16 a forward pass in eval mode repacks the 4-bit weights for a kernel without a backward pass,
    and they stay repacked: after the first evaluation, gradients would be silently wrong. Without repacking, evaluation
    is slower and training correct.

    Args:
        model: as quantized by `from_pretrained`; changed in place. Layers that stay unquantized keep the plan's dtype.
            PEFT's preparation would copy them to float32, which autocast does not need.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_relevant)


def release_files(model: nn.Module) -> None:
    """Give back the memory of the weights as they were before a CPU quantized them.

    transformers maps the weight files, and an embedding that is a view of them would keep all their pages in the
    resident set; so what stays unquantized is copied. The unquantized copies of weights are freed by then.

    Args:
        model: as quantized by `from_pretrained`; changed in place.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.is_floating_point() and getattr(tensor, "quant_state", None) is None:
            tensor.data = tensor.data.clone()
    release_free_memory()


def unquantized_notice(model: nn.Module) -> str | None:
    """Sentence about experts that are not quantized, so that the memory they take is no surprise.

    bitsandbytes quantizes linear layers, but not experts that are stored in one parameter.

    Args:
        model: as quantized by `from_pretrained`.

    Returns:
        The sentence with their number and bytes; None if the model has no such experts or is not quantized.
    """
    experts = (expert_parameters(model) | expert_matrices(model)).values()
    if not experts or not getattr(model, "is_quantized", False):
        return None
    count, size = sum(one.numel() for one in experts), sum(one.nbytes for one in experts)
    dtype = str(next(iter(experts)).dtype).removeprefix("torch.")
    return (
        f"quantization_bit leaves the experts of {type(model).__name__} in {dtype}: {count:,} of "
        f"{count_parameters(model)[0]:,} parameters, {size / 1e9:,.2f} GB. bitsandbytes quantizes linear layers, and "
        "these are parameters. Remove quantization_bit, or use a smaller model, if memory is short."
    )


def _is_relevant(record: logging.LogRecord) -> bool:
    """Logging filter that drops the line which the 8-bit product logs for every layer of every step."""
    return not record.msg.startswith("MatMul8bitLt: inputs will be cast")
