"""Loads a model from disk onto the planned device."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from llf_core.config.new_tokens import adds_tokens
from llf_core.config.registry import method_of
from llf_core.config.rope_scaling import (
    KEY,
    LONGEST,
    ORIGINAL,
    RopeScalingError,
    longest_text,
    plan_scaling,
    tables_to_scale,
)
from llf_core.config.stored_quantization import is_quantized as is_quantized_files
from llf_core.config.stored_quantization import quantizer_of_files, stays_packed
from llf_core.models.architecture import auto_class, compute_rows_alone, load_architecture
from llf_core.models.checksums import check_checksums
from llf_core.models.errors import ModelError, first_line, missing_package
from llf_core.models.gguf import gguf_arguments
from llf_core.models.gguf_cache import dequantized_folder
from llf_core.models.header_check import damaged_json, stored_dtypes
from llf_core.models.lazy_imports import import_bitsandbytes, no_progress_bars
from llf_core.models.memory import is_out_of_memory
from llf_core.models.mixture_of_depths import restore_routers
from llf_core.models.model_folder import weight_files
from llf_core.models.model_source import resolve_trust_remote_code
from llf_core.models.new_tokens import add_rows
from llf_core.models.quantize import (
    is_quantized,
    keep_differentiable,
    quantization_config,
    quantize_with_hqq,
    release_files,
    unpacking_config,
)
from llf_core.models.reward_model import generates, unused_lm_head
from llf_core.models.tokenizer import load_with_new_tokens

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.config.rope_scaling import RopeScaling
    from llf_core.models.device import DevicePlan
    from llf_core.models.model_source import ModelSource


def load_model(source: ModelSource, config: RunConfig, plan: DevicePlan) -> PreTrainedModel:
    """Load a causal language model or a multimodal model, quantize it if configured, and put it on the device.

    A model that is missing, damaged or unsupported becomes a sentence here, not a library's trace. Tokens that the
    config adds to the tokenizer get their embeddings.

    Args:
        source: from `resolve_model`.
        config: for quantization, `flash_attn`, `rope_scaling`, `train_from_scratch`, the added tokens, `pure_bf16`,
            `trust_remote_code` and `allow_pickle`.
        plan: from `plan_device`. For the dtype of the weights see `loading_dtype`.

    Returns:
        The model on the plan's device; for `meta` nothing but the headers of the weight files is read. Its weights are
        random with `train_from_scratch`. Otherwise no weight that the run uses is missing, and the result of a run has
        the weights that it saved.

    Raises:
        ModelError: unknown architecture, missing or broken weights, a package of the quantizer or of attention kernels
            that is not installed, or new tokens for which the embedding cannot be resized.
    """
    import_bitsandbytes()
    import torch
    from transformers import AutoModelForCausalLM

    trusted = resolve_trust_remote_code(source, config)
    architecture = None if source.kind == "gguf" else load_architecture(source, trust_remote_code=trusted)
    kind = (None if architecture is None else auto_class(architecture)) or AutoModelForCausalLM
    stored = _stored_settings(architecture)
    found = quantizer_of_files(stored)
    bits = quantization_config(config, plan) if found is None else unpacking_config(found)
    quantized = stays_packed(stored) if found is not None else bits is not None or is_quantized_files(stored)
    arguments: dict[str, Any] = {
        "dtype": loading_dtype(source, config, plan),
        "trust_remote_code": trusted,
        "local_files_only": True,
        "attn_implementation": attention_name(config.model.flash_attn),
    }
    scaled = None if config.model.rope_scaling is None else scaled_architecture(source, config)[0]
    if scaled is not None:
        arguments["config"] = scaled
    if config.model.train_from_scratch:
        with torch.device("meta") if plan.device == "meta" else nullcontext():
            made = _random_model(kind, source, config, arguments)
        return with_new_tokens(made.to(plan.device), source, config)
    arguments |= {"device_map": {"": plan.place}} if quantized or plan.device == "meta" else {}
    try:
        with no_progress_bars():
            folder, files = _files(source, bits, arguments["dtype"])
            arguments |= files
            # Weights of the wrong shape are reported below, with their names.
            model, info = kind.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
            )
    except UnpicklingError as error:
        raise ModelError(
            f"The pickled weights of {source.name} contain more than tensors. They were not executed. "
            "Expected weights only. Use a model with *.safetensors."
        ) from error
    except Exception as error:
        if isinstance(error, ModelError) or is_out_of_memory(error):
            raise
        why = damaged_json(source.folder) if source.kind != "gguf" else ""
        what = source.name if arguments.get("use_safetensors", True) else f"A pickle of {source.name}"
        raise ModelError(f"{what} cannot be loaded: {why or _why(error)}") from error
    other = sorted(tuple(one) for one in info.get("mismatched_keys", ()))
    if other:
        name, stored, expected = other[0]
        raise ModelError(
            f"{source.name} has {len(other)} weights whose shape differs from its config, the first is {name}: "
            f"{str(list(stored))[:100]}. Expected {list(expected)}. Copy or download the model again, config.json too."
        )
    missing = sorted(set(info.get("missing_keys", ())) - _not_needed(model, config))
    if missing:
        raise ModelError(
            f"{source.name} lacks {len(missing)} weights of a {type(model).__name__}, the first is {missing[0]}; they "
            "would start at random. Expected the weights of a causal language model."
        )
    restore_routers(model, source.folder)
    depend_on_batch_alone(model)
    compute_rows_alone(model)
    if (not quantized and quantize_with_hqq(model, config, plan)) or quantized:
        keep_differentiable(model)
        release_files(model)
    elif plan.device != "meta":
        check_checksums(model, source.folder)
    fix_generation_config(model)
    return with_new_tokens(model if is_quantized(model) else model.to(plan.device), source, config)


def with_new_tokens(model: PreTrainedModel, source: ModelSource, config: RunConfig) -> PreTrainedModel:
    """Give a model embeddings for the tokens that a config or its adapters add to its tokenizer.

    Args:
        model: as loaded, or on the device `meta`; changed in place.

    Returns:
        The model, see `add_rows`.
    """
    if not adds_tokens(config) and not config.model.adapter_name_or_path:
        return model
    return add_rows(model, *load_with_new_tokens(source, config), config)


def _stored_settings(architecture: object) -> dict[str, object]:
    """The quantization of a model's files as `config.json` has it; empty if they are not quantized."""
    stored = getattr(architecture, "quantization_config", None)
    if stored is None:
        return {}
    return {"quantization_config": stored if isinstance(stored, dict) else stored.to_dict()}


def _files(source: ModelSource, bits: Any, dtype: torch.dtype) -> tuple[Path, dict[str, Any]]:
    """Folder to load from, and arguments of `from_pretrained` that depend on the files and on the quantization."""
    quantization = {} if bits is None else {"quantization_config": bits}
    if source.kind == "gguf":
        cached = dequantized_folder(source.path, dtype)
        if cached is None:
            return source.folder, gguf_arguments(source.path.name) | quantization
        return cached, {"use_safetensors": True} | quantization
    safe, _, _ = weight_files(file.name for file in source.folder.iterdir())
    return source.folder, {"use_safetensors": bool(safe)} | quantization


def scaled_architecture(source: ModelSource, config: RunConfig) -> tuple[PretrainedConfig, RopeScaling | None]:
    """Read a model's config and scale its rotary embeddings by `rope_scaling`, for the longest text of a run.

    Args:
        config: for `rope_scaling`, `trust_remote_code`, `cutoff_len` and the completions of its stage.

    Returns:
        The config, and the scaling; None if the model needs none.
    """
    architecture, kind = read_architecture(source, config), config.model.rope_scaling
    if kind is None:
        return architecture, None
    trusted = resolve_trust_remote_code(source, config)
    return scale_architecture(architecture, source.name, kind, longest_text(config), trust_remote_code=trusted)


def read_architecture(source: ModelSource, config: RunConfig) -> PretrainedConfig:
    """Read a model's own config, also that of a GGUF file, to know its architecture without loading it.

    Args:
        config: for `trust_remote_code`.

    Raises:
        ModelError: `config.json` is not valid, or transformers does not know the architecture.
    """
    from transformers import AutoConfig

    if source.kind == "gguf":
        try:
            found: PretrainedConfig = AutoConfig.from_pretrained(
                source.folder, gguf_file=source.path.name, local_files_only=True
            )
        except (ValueError, KeyError) as error:
            raise ModelError(f"{source.name} cannot be loaded: {first_line(error)}") from error
        return found
    return load_architecture(source, trust_remote_code=resolve_trust_remote_code(source, config))


def _random_model(kind: Any, source: ModelSource, config: RunConfig, arguments: dict[str, Any]) -> PreTrainedModel:
    """A model with random weights, which are the same for the same seed, whatever was drawn before."""
    import torch
    from transformers import AutoConfig

    if source.kind == "gguf":
        raise ModelError(f"{source.name} is a GGUF file. Training from random weights expects a folder or a hub id.")
    trusted = arguments.pop("trust_remote_code")
    local = arguments.pop("local_files_only")
    try:
        architecture = arguments.pop("config", None) or AutoConfig.from_pretrained(
            source.folder, trust_remote_code=trusted, local_files_only=local
        )
        with torch.random.fork_rng():
            torch.manual_seed(config.training.seed)
            model: PreTrainedModel = kind.from_config(architecture, trust_remote_code=trusted, **arguments)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"No model of the architecture of {source.name} can be made: {_why(error)}") from error
    depend_on_batch_alone(model)
    compute_rows_alone(model)
    fix_generation_config(model)
    return model


def _why(error: Exception) -> str:
    """A library's error about a model, and what to do."""
    if isinstance(error, ImportError):
        return missing_package(error)
    return f"{first_line(error)} Copy or download it again if files are damaged."


def check_forward(model: PreTrainedModel, source: ModelSource) -> None:
    """Run a forward pass on two tokens: some versions of transformers load models that they cannot run.

    Otherwise the error would come only after the data is prepared, and from inside a step.

    Raises:
        ModelError: the forward pass raises an exception, other than out of memory.
    """
    import torch
    import transformers

    ids = torch.ones(1, 2, dtype=torch.int64, device=model.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"transformers {transformers.__version__} loads {source.name} but cannot run it: {first_line(error)} "
            "Try another version of transformers, or another model."
        ) from error
    finally:
        model.train(training)


def _not_needed(model: PreTrainedModel, config: RunConfig) -> set[str]:
    """Names of weights that a run can do without: the output head of a model that only computes scores."""
    idle = set() if generates(config) else {id(parameter) for parameter in unused_lm_head(model)}
    return {name for name, parameter in model.named_parameters() if id(parameter) in idle}


def loading_dtype(source: ModelSource, config: RunConfig, plan: DevicePlan) -> torch.dtype:
    """Choose the dtype in which weights are loaded.

    A method that trains the weights themselves loads them in float32 if some are stored in it, even if the plan
    computes in bfloat16, and if the plan computes in float16, whose range is too small for them. In all other cases, as
    of a frozen base and with `pure_bf16`, it is the plan's dtype. Random weights are float32, with `pure_bf16` the
    plan's dtype.

    Args:
        config: for the method, `train_from_scratch` and `pure_bf16`.
    """
    import torch

    if config.model.train_from_scratch:
        return plan.torch_dtype if config.get("pure_bf16") else torch.float32
    frozen = method_of(config).frozen_base
    stored = stored_dtypes(source.folder)  # also refuses truncated files
    # float16 would round bfloat16 values below 6e-5, and trained weights become float32 anyway.
    if not frozen and not config.get("pure_bf16") and ("F32" in stored or plan.dtype == "float16"):
        return torch.float32
    return plan.torch_dtype


def fix_generation_config(model: PreTrainedModel) -> None:
    """Enable sampling where a model's `generation_config.json` sets sampling parameters without `do_sample`.

    transformers refuses to save such a model, which would be noticed only at the first checkpoint.
    """
    generation = getattr(model, "generation_config", None)  # a classifier has none
    if generation is not None and not generation.do_sample:
        set_ = [getattr(generation, key, None) for key in ("temperature", "top_p", "top_k", "typical_p", "min_p")]
        generation.do_sample = any(value not in (None, 1.0, 0) for value in set_)


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


def scale_architecture(
    architecture: PretrainedConfig, name: str, kind: str, tokens: int, *, trust_remote_code: bool
) -> tuple[PretrainedConfig, RopeScaling | None]:
    """Scale the rotary embeddings in a model's config so that it reads texts of `tokens` tokens.

    A model of that config is made on the device `meta`, to see whether its rotary embeddings are scaled.

    Args:
        kind: value of `rope_scaling`.

    Returns:
        A changed copy of the config and its scaling; the config itself and None if it reads such texts already.

    Raises:
        ModelError: it has no rotary embeddings that transformers can scale, or is scaled in another way already.
    """
    scaled = copy.deepcopy(architecture)
    text: Any = scaled.get_text_config()
    given, longest = getattr(text, "rope_parameters", None), getattr(text, LONGEST, None)
    if not given or not isinstance(longest, int):
        raise _refused(name, kind, f"An architecture of type {text.model_type} has no rotary embeddings to scale.")
    try:
        tables = tables_to_scale(given)
        plan = plan_scaling(kind, next(iter(tables.values())), longest, tokens)
    except RopeScalingError as error:
        raise ModelError(f"{name} cannot be scaled. {error}") from error
    if plan is None:
        return architecture, None
    made = {key: plan.parameters(table) for key, table in tables.items()}
    try:
        setattr(text, LONGEST, plan.position_embeddings)
        if hasattr(text, ORIGINAL):
            setattr(text, ORIGINAL, plan.original)
        if getattr(text, "head_dim", 0) is None:  # Mixtral: transformers' formulas of yarn and dynamic need the number
            text.head_dim = text.hidden_size // text.num_attention_heads
        text.rope_parameters = made.get("", {**given, **made})
        text.validate_rope()
        unscaled = _unscaled(scaled, kind, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _refused(name, kind, f"transformers refuses it: {first_line(error)}") from error
    if unscaled:
        raise _refused(name, kind, unscaled)
    return scaled, plan


def _refused(name: str, kind: str, why: str) -> ModelError:
    return ModelError(
        f"{KEY} is {kind}, and {name} cannot be scaled so. {why} Remove {KEY}, or choose a model with rotary "
        "embeddings, such as llama or qwen3."
    )


def _unscaled(architecture: PretrainedConfig, kind: str, *, trust_remote_code: bool) -> str:
    """Why a model of a config has rotary embeddings without its scaling; empty if all have it."""
    import torch
    from transformers import AutoModelForCausalLM

    auto = auto_class(architecture) or AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(architecture, trust_remote_code=trust_remote_code)
    rotary = [module for module in model.modules() if hasattr(module, "rope_type")]
    scaled = {type(module) for module in rotary if kind in _kinds(module)}
    if not scaled:
        return f"{type(model).__name__} ignores it."
    if any(kind not in _kinds(module) for module in rotary if type(module) in scaled):
        return f"{type(model).__name__} has several decoders, of which not all would be scaled."
    return ""


def _kinds(rotary: Any) -> list[str]:
    """Kinds of scaling of a rotary embedding, for all kinds of layers."""
    found = rotary.rope_type
    return list(found.values()) if isinstance(found, dict) else [found]


def depend_on_batch_alone(model: nn.Module) -> None:
    """Have rotary embeddings with dynamic scaling forget the texts of earlier batches, in place.

    transformers (`dynamic_rope_update`) keeps the frequencies of the longest text until one comes that is shorter than
    the original length, so the loss of a batch would depend on those before it.
    """
    for module in model.modules():
        if hasattr(module, "rope_type") and "dynamic" in _kinds(module):
            module.register_forward_pre_hook(_forget)


def _forget(module: Any, args: tuple[object, ...]) -> None:  # noqa: ARG001 - given by torch
    """Give a rotary embedding the frequencies of texts up to the original length."""
    kinds = module.rope_type
    prefixes = [f"{one}_" for one, kind in kinds.items() if kind == "dynamic"] if isinstance(kinds, dict) else [""]
    for prefix in prefixes:
        if getattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len) > module.original_max_seq_len:
            device = getattr(module, f"{prefix}inv_freq").device
            frequencies = getattr(module, f"{prefix}original_inv_freq").to(device)
            module.register_buffer(f"{prefix}inv_freq", frequencies, persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
