"""Quantizes frozen weights to few bits, on CPU and GPU (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llf_core.config.quantizers import HQQ_GROUP
from llf_core.config.registry import quantizer_of
from llf_core.models.checksums import count_parameters, expert_matrices, expert_parameters, is_packed
from llf_core.models.errors import ModelError
from llf_core.models.memory import release_free_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from transformers import BitsAndBytesConfig, PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.config.quantizers import Quantizer
    from llf_core.models.device import DevicePlan

UNQUANTIZED: Mapping[str, None] = MappingProxyType(
    dict.fromkeys(("quantization_bit", "quantization_method", "quantization_type", "double_quantization"))
)
"""Config without quantization; with `quantization_bit`, of a second model in bitsandbytes."""


def quantization_config(config: RunConfig, plan: DevicePlan) -> Any:
    """Config of transformers with which `from_pretrained` quantizes the weights while it loads them.

    None if the model is not quantized, or by HQQ (`quantize_with_hqq`).

    Raises:
        ModelError: the quantizer's package is not installed.
    """
    bits = config.model.quantization_bit
    if bits is None:
        return None
    quantizer = quantizer_of(config)
    if missing := quantizer.missing_packages():
        raise ModelError(
            f"quantization_bit: {bits} needs {missing[0]}, which is not installed. "
            f"Run {quantizer.install_command()}, or remove quantization_bit."
        )
    as_float = config.model.quantization_type == "float8"
    match quantizer.name:
        case "bnb":
            return _bitsandbytes_config(config, plan)
        case "torchao":
            from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
            from transformers import TorchAoConfig

            return TorchAoConfig(Float8WeightOnlyConfig() if as_float else Int8WeightOnlyConfig(version=2))
        case "quanto":
            from transformers import QuantoConfig

            return QuantoConfig(weights="float8" if as_float else f"int{bits}")
        case "eetq":
            from transformers import EetqConfig

            return EetqConfig()
    return None


def unpacking_config(quantizer: Quantizer) -> Any:
    """Config with which `from_pretrained` unpacks quantized files to ordinary weights; None if they stay packed."""
    match quantizer.name:
        case "mxfp4":
            from transformers import Mxfp4Config

            return Mxfp4Config(dequantize=True)
        case "fp8":
            from transformers import FineGrainedFP8Config

            return FineGrainedFP8Config(dequantize=True)
    return None


def _bitsandbytes_config(config: RunConfig, plan: DevicePlan) -> BitsAndBytesConfig:
    """LLM.int8() (arXiv 2208.07339), or QLoRA's 4 bits (arXiv 2305.14314)."""
    from transformers import BitsAndBytesConfig

    if config.model.quantization_bit == 8:  # noqa: PLR2004 - the key's value
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.model.quantization_type,
        bnb_4bit_use_double_quant=config.model.double_quantization,
        bnb_4bit_compute_dtype=plan.torch_dtype,
    )


def quantize_with_hqq(model: PreTrainedModel, config: RunConfig, plan: DevicePlan) -> bool:
    """Quantize the linear layers of a loaded model with HQQ, in place on the plan's device, if the config says so.

    transformers 5 does not quantize with HQQ while it loads a model. The layers are those of HQQ's
    `AutoHQQHFModel.quantize_model`, with its default groups. The output head, and layers whose weight cannot be divided
    into such groups, stay as they are.
    """
    bits = config.model.quantization_bit
    if bits is None or config.model.quantization_method != "hqq":
        return False
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    from torch import nn

    settings = BaseQuantizeConfig(nbits=bits, group_size=HQQ_GROUP, axis=0)
    head = model.get_output_embeddings()
    layers = {path: one for path, one in model.named_modules() if type(one) is nn.Linear and one is not head}
    for path, layer in layers.items():
        if layer.weight.numel() % HQQ_GROUP:
            continue  # HQQ cannot divide it into groups
        shape = layer.weight.shape
        packed = HQQLinear(layer, settings, compute_dtype=plan.torch_dtype, device=plan.device)
        packed.W_q.unpacked_shape = shape
        model.set_submodule(path, packed)
    model.to(plan.device)
    _mark_quantized(model, "hqq")
    return True


def _mark_quantized(model: nn.Module, name: str) -> None:
    """Mark what transformers does not know as quantized, for `is_quantized`."""
    model.llf_quantizer = name  # type: ignore[assignment]  # an attribute of ours


def is_quantized(model: object) -> bool:
    """Whether the weights of an unwrapped model are quantized in memory."""
    return bool(getattr(model, "is_quantized", False) or getattr(model, "llf_quantizer", ""))


def keep_differentiable(model: nn.Module) -> None:
    """Keep a quantized model differentiable on a CPU, and silence a log line per layer.

    On CPUs with AVX512-BF16 a forward pass in eval mode repacks the 4-bit weights for a kernel without a backward pass,
    for good: after the first evaluation, gradients would be silently wrong.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_relevant)


def release_files(model: nn.Module) -> None:
    """Give back the memory of the weights as they were before a CPU quantized them.

    transformers maps the weight files, and an embedding or a buffer that is a view of them would keep all their pages
    in the resident set; so weights that stay unquantized and buffers are copied.
    """
    import torch

    ordinary = [one for one in model.parameters() if not is_packed(one)]
    for tensor in (*ordinary, *(one for one in model.buffers() if type(one) is torch.Tensor)):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    release_free_memory()


def unquantized_notice(model: nn.Module) -> str | None:
    """Sentence with the number and bytes of experts that are not quantized; None without such experts.

    Quantizers quantize linear layers, but not experts that are stored in one parameter.
    """
    experts = (expert_parameters(model) | expert_matrices(model)).values()
    if not experts or not is_quantized(model):
        return None
    count, size = sum(one.numel() for one in experts), sum(one.nbytes for one in experts)
    dtype = str(next(iter(experts)).dtype).removeprefix("torch.")
    return (
        f"quantization_bit leaves the experts of {type(model).__name__} in {dtype}: {count:,} of "
        f"{count_parameters(model)[0]:,} parameters, {size / 1e9:,.2f} GB. Quantizers take linear layers, and "
        "these are parameters. Remove quantization_bit, or use a smaller model, if memory is short."
    )


def _is_relevant(record: logging.LogRecord) -> bool:
    return not record.msg.startswith("MatMul8bitLt: inputs will be cast")
