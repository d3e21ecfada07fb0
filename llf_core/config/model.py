"""Which model is trained, and how it is loaded."""

from __future__ import annotations

from typing import Literal

from llf_core.config.option import Names, Section, option

EMBEDDED = "smollm2-135m-instruct"


class Model(Section):
    """Which model is trained, and how it is loaded."""

    model_name_or_path: str = option(
        EMBEDDED,
        label="Model",
        help="A hub id, a folder, a GGUF file, or `smollm2-135m-instruct`, which needs no hub.",
        level="basic",
        source="Hugging Face",
        path="model",
    )
    adapter_name_or_path: Names | None = option(
        None,
        unset="none: start a new one",
        label="Adapter",
        help="An adapter (folder or hub id) to go on training from; of several, all but the last are merged.",
        source="LLaMA-Factory",
        path="adapters",
    )
    model_revision: str = option(
        "main",
        label="Revision",
        help="Branch, tag or commit of the model on its hub.",
        source="LLaMA-Factory",
    )
    cache_dir: str | None = option(
        None,
        unset="Hugging Face's own folder",
        label="Download folder",
        help="Where models and data sets of a hub are kept; unset, where Hugging Face keeps them.",
        source="Hugging Face",
        path="folder",
    )
    trust_remote_code: bool = option(
        False,
        label="Run the model's own code",
        help="Runs Python code that comes with the model; only for a source that you trust.",
        source="Hugging Face",
    )
    allow_pickle: bool = option(
        False,
        label="Load pickle files",
        help="Loads weights that exist only as pickle (`.bin`), which can run code while it loads.",
    )
    use_fast_tokenizer: bool = option(
        True,
        label="Fast tokenizer",
        help="Takes the tokenizer written in Rust where the model has one.",
        source="Hugging Face",
    )
    flash_attn: Literal["auto", "disabled", "sdpa", "fa2", "fa3"] = option(
        "auto",
        label="Attention",
        help="By PyTorch (`auto`, `sdpa`: without padding where possible), plainly (`disabled`), or by FlashAttention.",
        choices=("auto", "disabled", "sdpa", "fa2", "fa3"),
        source="LLaMA-Factory",
    )
    disable_gradient_checkpointing: bool = option(
        False,
        label="Keep activations",
        help="Keeps all activations in memory, whatever the forecast of its use says.",
        source="LLaMA-Factory",
    )
    use_reentrant_gc: bool = option(
        False,
        label="Reentrant checkpointing",
        help="Takes PyTorch's older form of gradient checkpointing, with the same gradients.",
        source="LLaMA-Factory",
    )
    quantization_bit: Literal[4, 8] | None = option(
        None,
        unset="none",
        label="Quantization",
        help="Keeps the frozen weights in 4 or 8 bits (QLoRA), by bitsandbytes.",
        unit="bits",
        choices=(4, 8),
        level="basic",
        source="LLaMA-Factory",
    )
    quantization_method: Literal["bnb"] = option(
        "bnb",
        label="Quantizer",
        help="What quantizes the weights while they are loaded.",
        choices=("bnb",),
        source="LLaMA-Factory",
    )
    quantization_type: Literal["nf4", "fp4"] = option(
        "nf4",
        label="4-bit type",
        help="The 4-bit number format; `nf4` fits normally distributed weights.",
        choices=("nf4", "fp4"),
        source="LLaMA-Factory",
    )
    double_quantization: bool = option(
        True,
        label="Double quantization",
        help="Quantizes the scales of the 4-bit weights too, which saves about 0.4 bits a weight.",
        source="LLaMA-Factory",
    )
