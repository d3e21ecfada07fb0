from __future__ import annotations

from typing import Literal

from llf_core.config.option import Names, Section, option
from llf_core.config.quantizers import FORMATS, QUANTIZERS

EMBEDDED = "smollm2-135m-instruct"


class Model(Section):
    """Base model and how it is loaded."""

    model_name_or_path: str = option(
        EMBEDDED,
        label="Model",
        help="Hub id, local folder, GGUF file, or `smollm2-135m-instruct`, which needs no hub.",
        level="basic",
        source="Hugging Face",
        path="model",
    )
    adapter_name_or_path: Names | None = option(
        None,
        unset="none: start a new one",
        label="Adapter",
        help=(
            "Adapter (folder or hub id) to continue training. If there are several, all but the last are merged into "
            "the model."
        ),
        source="LLaMA-Factory",
        path="adapters",
    )
    adapter_folder: str | None = option(
        None,
        unset="none: the top folder",
        label="Adapter subfolder",
        help="Subfolder with the adapter inside the folder or hub repository of each adapter.",
        source="LLaMA-Factory",
    )
    model_revision: str = option(
        "main",
        label="Revision",
        help="Branch, tag or commit of the model on the hub.",
        source="LLaMA-Factory",
    )
    hub: Literal["huggingface", "modelscope", "modelers"] = option(
        "huggingface",
        label="Hub",
        help=(
            "Where models and adapters are downloaded from: Hugging Face or a mirror (`HF_ENDPOINT`), ModelScope, or "
            "Modelers. Data sets always come from Hugging Face."
        ),
        choices=("huggingface", "modelscope", "modelers"),
    )
    cache_dir: str | None = option(
        None,
        unset="Hugging Face's own folder",
        label="Download folder",
        help="Folder for models and data sets from a hub. Default: Hugging Face's own cache.",
        source="Hugging Face",
        path="folder",
    )
    trust_remote_code: bool = option(
        False,
        label="Run the model's own code",
        help="Runs the Python code that comes with the model. Only for sources that you trust.",
        source="Hugging Face",
    )
    allow_pickle: bool = option(
        False,
        label="Load pickle files",
        help="Loads weights that exist only as pickle (`.bin`). A pickle file can run code while it loads.",
    )
    use_fast_tokenizer: bool = option(
        True,
        label="Fast tokenizer",
        help="Uses the tokenizer written in Rust if the model has one.",
        source="Hugging Face",
    )
    add_tokens: Names | None = option(
        None,
        unset="none",
        label="New tokens",
        help="Tokens that are added to the vocabulary, separated by commas. Their embeddings are trained.",
        source="LLaMA-Factory",
    )
    add_special_tokens: Names | None = option(
        None,
        unset="none",
        label="New special tokens",
        help="Special tokens that are added, which decoded answers leave out. Their embeddings are trained.",
        source="LLaMA-Factory",
    )
    new_special_tokens_config: str | None = option(
        None,
        unset="none",
        label="Described special tokens",
        help="YAML file that maps each new special token to a text that describes it.",
        source="LLaMA-Factory",
        path="file",
    )
    init_special_tokens: Literal["noise_init", "mean_init", "desc_init", "desc_init_w_noise"] = option(
        "noise_init",
        label="New embeddings",
        help=(
            "What the embedding of a new token begins as: the mean of all others with noise of standard deviation "
            "1/√d or without, or the mean of the tokens of its description with or without noise."
        ),
        choices=("noise_init", "mean_init", "desc_init", "desc_init_w_noise"),
        source="LLaMA-Factory",
    )
    resize_vocab: bool = option(
        False,
        label="Resize the vocabulary",
        help=(
            "Adds the tokens that end an answer in `template` and that the tokenizer lacks, and embeddings for all "
            "tokens that the model has none for. New tokens are added without it too."
        ),
        source="LLaMA-Factory",
    )
    flash_attn: Literal["auto", "disabled", "sdpa", "fa2", "fa3"] = option(
        "auto",
        label="Attention",
        help=(
            "Attention implementation: `auto` and `sdpa` use PyTorch (without padding where possible), `disabled` "
            "uses plain matrix products, the others FlashAttention."
        ),
        choices=("auto", "disabled", "sdpa", "fa2", "fa3"),
        source="LLaMA-Factory",
    )
    rope_scaling: Literal["linear", "dynamic", "yarn", "llama3"] | None = option(
        None,
        unset="none",
        label="RoPE scaling",
        help=(
            "Stretches the rotary position embeddings where `cutoff_len` exceeds the model's context length, by the "
            "smallest integer factor that suffices. `yarn` usually needs the least training."
        ),
        choices=("linear", "dynamic", "yarn", "llama3"),
        source="LLaMA-Factory",
    )
    train_from_scratch: bool = option(
        False,
        label="Random weights",
        help="Starts with random weights of the model's architecture and tokenizer, drawn with `seed`.",
        source="LLaMA-Factory",
    )
    disable_gradient_checkpointing: bool = option(
        False,
        label="Never checkpoint activations",
        help="Keeps all activations in memory, whatever the memory forecast says.",
        source="LLaMA-Factory",
    )
    use_reentrant_gc: bool = option(
        False,
        label="Reentrant checkpointing",
        help="Uses PyTorch's older implementation of gradient checkpointing. The gradients are the same.",
        source="LLaMA-Factory",
    )
    print_param_status: bool = option(
        False,
        label="Log every parameter",
        help="Writes name, dtype, shape, device and whether it is trained of each parameter to the run's log.",
        source="LLaMA-Factory",
    )
    quantization_bit: Literal[1, 2, 3, 4, 5, 6, 8] | None = option(
        None,
        unset="none",
        label="Quantization bits",
        help="Stores the frozen weights in few bits (QLoRA), by the library that `quantization_method` names.",
        unit="bits",
        choices=(1, 2, 3, 4, 5, 6, 8),
        level="basic",
        source="LLaMA-Factory",
    )
    quantization_method: Literal["bnb", "hqq", "torchao", "quanto", "eetq", "gptq", "awq", "aqlm", "mxfp4", "fp8"] = (
        option(
            "bnb",
            label="Quantization method",
            help="Library that quantizes the weights while they are loaded.",
            choices=tuple(QUANTIZERS),
            source="LLaMA-Factory",
        )
    )
    quantization_type: Literal["nf4", "fp4", "float8"] = option(
        "nf4",
        label="Number format",
        help=(
            "Number format: `nf4`, which suits normally distributed weights, or `fp4` for 4 bits of bnb, `float8` for "
            "8 bits of torchao or quanto. The other quantizers store integers."
        ),
        choices=FORMATS,
        source="LLaMA-Factory",
    )
    double_quantization: bool = option(
        True,
        label="Double quantization",
        help="Quantizes the scales of the 4-bit weights too. Saves about 0.4 bits per weight.",
        source="LLaMA-Factory",
    )
