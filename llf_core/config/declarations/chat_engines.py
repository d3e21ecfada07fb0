"""The engines of the chat: LLF's own, vLLM and SGLang."""

from __future__ import annotations

from typing import Literal

from llf_core.config.declaration import ChatEngineDeclaration
from llf_core.config.option import Object, Section, option

OWN = ChatEngineDeclaration(
    name="huggingface",
    label="LLF's engine",
    summary="any device, any adapter of PEFT, several adapters on one set of weights",
    implementation="llf_core.chat.engine_process:EngineProcess",
)


class VLLMOptions(Section):
    """Options of vLLM."""

    vllm_maxlen: int = option(
        4096, label="Maximum length", help="Maximum tokens of prompt and reply.", minimum=1, source="LLaMA-Factory"
    )
    vllm_gpu_util: float = option(
        0.7,
        label="Share of the GPU",
        help="Share of the GPU's memory for weights and cache.",
        above=0,
        maximum=1,
        source="LLaMA-Factory",
    )
    vllm_enforce_eager: bool = option(
        False,
        label="No CUDA graphs",
        help="Runs the model without CUDA graphs: starts sooner and uses less memory, but replies more slowly.",
        source="LLaMA-Factory",
    )
    vllm_max_lora_rank: int = option(
        32, label="Maximum rank", help="Largest rank of an adapter.", minimum=1, source="LLaMA-Factory"
    )
    vllm_config: Object | None = option(
        None,
        unset="none",
        label="Further arguments",
        help='Further arguments of `vllm serve` by name: `{"kv_cache_dtype": "fp8"}`.',
        source="LLaMA-Factory",
    )


VLLM = ChatEngineDeclaration(
    name="vllm",
    label="vLLM",
    summary="many requests at once on a GPU; LoRA adapters only, without DoRA",
    paper="arXiv 2309.06180",
    implementation="llf_core.chat.server_engine:VLLMEngine",
    options=VLLMOptions,
    package="vllm",
)


class SGLangOptions(Section):
    """Options of SGLang."""

    sglang_maxlen: int = option(
        4096, label="Maximum length", help="Maximum tokens of prompt and reply.", minimum=1, source="LLaMA-Factory"
    )
    sglang_mem_fraction: float = option(
        0.7,
        label="Share of the GPU",
        help="Share of the GPU's memory for weights and cache.",
        above=0,
        maximum=1,
        source="LLaMA-Factory",
    )
    sglang_tp_size: int = option(
        -1,
        label="GPUs",
        help="Number of GPUs that share the weights (tensor parallelism). -1 takes one.",
        minimum=-1,
        source="LLaMA-Factory",
    )
    sglang_lora_backend: Literal["triton", "flashinfer"] = option(
        "triton",
        choices=("triton", "flashinfer"),
        label="Kernels of adapters",
        help="Kernels with which SGLang computes adapters.",
        source="LLaMA-Factory",
    )
    sglang_config: Object | None = option(
        None,
        unset="none",
        label="Further arguments",
        help='Further arguments of SGLang\'s server by name: `{"kv_cache_dtype": "fp8_e5m2"}`.',
        source="LLaMA-Factory",
    )


SGLANG = ChatEngineDeclaration(
    name="sglang",
    label="SGLang",
    summary="many requests at once on a GPU, with reuse of common prefixes; LoRA adapters only",
    paper="arXiv 2312.07104",
    implementation="llf_core.chat.server_engine:SGLangEngine",
    options=SGLangOptions,
    package="sglang",
)
