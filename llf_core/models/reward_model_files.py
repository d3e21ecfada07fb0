"""Finds reward models, the config of their run and their base, and loads them in the formats they are saved in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config import RunConfig
from llf_core.config.name_checks.models import is_path, may_be_hub_id, meant_instead, shown_name
from llf_core.config.paths import expanded, is_there
from llf_core.models.adapter_folder import SAFETENSORS_FILE, adapter_settings, check_pickle
from llf_core.models.architecture import compute_rows_alone
from llf_core.models.device import plan_device
from llf_core.models.errors import ModelError, first_line
from llf_core.models.header_check import check_sizes, read_header
from llf_core.models.lazy_imports import no_progress_bars
from llf_core.models.load import load_model
from llf_core.models.memory import is_out_of_memory
from llf_core.models.model_folder import REDOWNLOAD, check_files, check_shards, read_config
from llf_core.models.model_source import ModelSource, resolve_trust_remote_code
from llf_core.models.quantize import quantization_config
from llf_core.models.resolve import resolve_model
from llf_core.models.reward_model import HEAD_NAME, HEAD_WEIGHT, RewardModel, classifier_pad_token_id
from llf_core.models.tokenizer import load_tokenizer
from llf_core.runs import RunFolder, home
from llf_core.runs.config_file import run_config
from llf_core.runs.folder import RUN_ID
from llf_core.untrusted import real_path

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


VALUE_HEAD = "value_head.safetensors"
"""File of LLaMA-Factory's reward head: `v_head.summary.weight` and `.bias`."""

LOADING_KEYS = (
    "model_name_or_path", "trust_remote_code", "cache_dir", "hub", "allow_pickle", "use_fast_tokenizer", "flash_attn",
    "use_cpu", "bf16", "fp16", "pure_bf16",
)  # fmt: skip
"""Keys that determine how any model is loaded."""

EXPECTED = (
    "Expected a run of stage rm or its output, an adapter of a classifier with its `score`, a sequence classifier "
    "with one label, or what LLaMA-Factory saves with a value_head.safetensors."
)


def find_reward_model(name: str, config: RunConfig) -> Path:
    """Find the folder of a reward model, of a run its `output/`, and check its files without loading it.

    Raises:
        ModelError: there is none, its files have no reward head, are damaged or too large for its config, or are
            pickles and not allowed.
    """
    folder = _folder_of(name, config)
    adapter = (folder / "adapter_config.json").is_file()
    if (folder / VALUE_HEAD).is_file():
        good = True
    elif adapter and (folder / SAFETENSORS_FILE).is_file():
        good = any(key.endswith(f".{HEAD_WEIGHT}") for key in read_header(folder / SAFETENSORS_FILE))
    elif (folder / "config.json").is_file():
        kinds = read_config(folder).get("architectures")
        good = isinstance(kinds, list) and any("SequenceClassification" in str(one) for one in kinds)
    else:
        good = adapter
    if not good:
        raise ModelError(f"{name} is not a reward model: it has no reward head. {EXPECTED}")
    if adapter:
        check_pickle(folder, name, config)
    else:
        check_files(name, [file.name for file in folder.iterdir()], allow_pickle=config.model.allow_pickle)
        check_shards(folder)
        check_sizes(folder)
    return folder


def _folder_of(name: str, config: RunConfig) -> Path:
    folder = _local(name)
    if name.strip() and is_there(folder) and folder.is_dir():
        run = RunFolder(folder)
        if not run.config.is_file():
            return folder
        if not run.output.is_dir():
            raise ModelError(f"{run.id} has no output yet. Expected a finished run. Wait for it, or resume it.")
        return run.output
    if is_path(name) or "/" not in name or not may_be_hub_id(name):
        meant = meant_instead(name, config.model.cache_dir)
        raise ModelError(f"No reward model at {shown_name(name)}.{meant} {EXPECTED}")
    from llf_core.models.hub import hub_adapter

    return hub_adapter(name, config)


def _local(name: str) -> Path:
    folder = expanded(name)
    if not is_there(folder) and RUN_ID.fullmatch(name) and (home() / "runs" / name).is_dir():
        return home() / "runs" / name
    return folder


def config_of_run(name: str) -> RunConfig | None:
    """Config of the run that trained a reward model; None if there is no such run or reward model."""
    folder = _local(name)
    run = RunFolder(folder)
    return run_config(run) if run.config.is_file() else _config_of_result(folder)


def _config_of_result(folder: Path) -> RunConfig | None:
    """Config of the run whose result is in `folder`; None if it is no run's `output`."""
    run = RunFolder(folder.parent)
    return run_config(run) if folder == run.output and run.config.is_file() else None


def reward_model_base(name: str, config: RunConfig, base: ModelSource) -> ModelSource:
    """Find the base model of a reward model that is an adapter.

    Args:
        base: the policy's base model; returned if the adapter names it or its folder, so that both share it in memory.

    Raises:
        ModelError: the reward model does not exist or is no adapter, or its base does not exist.
    """
    folder = find_reward_model(name, loading_config(config, None))
    if not (folder / "adapter_config.json").is_file():
        raise whole_model_error(name)
    wanted = base_of_adapter(folder)
    if wanted in {base.name, base.portable_name} or real_path(expanded(wanted)) == real_path(base.folder):
        return base
    try:
        found = resolve_model(wanted, config)
    except ModelError as error:
        if wanted.rstrip("/").rpartition("/")[2] == base.name.rstrip("/").rpartition("/")[2]:
            return base  # the folder was moved
        raise ModelError(
            f"The reward model {name} is an adapter of {wanted}, not of {base.name}, and that base is missing: {error}"
        ) from error
    same = real_path(found.path) == real_path(base.path) or (found.sha256 is not None and found.sha256 == base.sha256)
    return base if same else found


def base_of_adapter(folder: Path) -> str:
    """Base model of an adapter, by the config of the run that made it, else by the adapter's config.

    Raises:
        ModelError: the adapter does not name its base, or its config is damaged or unreadable.
    """
    config = _config_of_result(folder)
    if config is not None:
        return config.model.model_name_or_path
    base: str | None = adapter_settings(folder).base_model_name_or_path
    if not base:
        raise ModelError(f"The adapter in {folder} does not name the model it was trained for.")
    return base


def whole_model_error(name: str) -> ModelError:
    """Error for a whole model where only an adapter can share the policy's base."""
    return ModelError(f"{name} is a whole model, so it cannot be loaded as an adapter.")


def loading_config(config: RunConfig | None, quantization_bit: int | None) -> RunConfig:
    """Config with which a reward model is loaded alone: the keys that determine how any model is loaded.

    Args:
        config: of a run, whose number of threads torch already has; None for the defaults.
        quantization_bit: 4, 8 or None.
    """
    import torch

    kept = (
        {} if config is None else {key: config.get(key) for key in LOADING_KEYS} | {"threads": torch.get_num_threads()}
    )
    values = {key: value for key, value in kept.items() if value is not None}
    return RunConfig.load(
        values | {"dataset": "unused", "finetuning_type": "lora", "quantization_bit": quantization_bit}
    )


def load_reward_model(
    name: str,
    config: RunConfig | None = None,
    *,
    shared_model: Any = None,
    adapter: str = "reward",
    quantization_bit: int | None = None,
) -> RewardModel:
    """Load a reward model: an adapter, a whole classifier, or a model with a value head.

    Args:
        name: run of stage rm, its `output/`, another folder, or a hub id.
        config: None for the defaults.
        shared_model: PEFT model with the adapter's base (such as the policy). The reward model is loaded as another
            adapter of it, with its head kept separate. The active adapter does not change.
        quantization_bit: bits of the weights of a separate model, 4 or 8; None if not quantized.

    Raises:
        ModelError: the reward model does not exist, is no reward model, or does not fit the model it is loaded onto.
        UntrustedCodeError: Python code of the model would run, and the user has not allowed it.
    """
    alone = loading_config(config, quantization_bit)
    folder = find_reward_model(name, alone)
    if not (folder / "adapter_config.json").is_file():
        if shared_model is not None:
            raise whole_model_error(name)
        return _whole(name, folder, alone)
    head, skips_padding = _head_of(name, folder)
    if shared_model is None:
        source = resolve_model(base_of_adapter(folder), alone)
        model: Any = load_model(source, alone, plan_device(alone))
        tokenizer, of = _tokenizer(folder, source, alone), None
    else:
        model, of = shared_model, adapter
        tokenizer = _tokenizer(folder, None, alone)
    model = _with_adapter(model, name, folder, of)
    head.to(model.device).requires_grad_(requires_grad=False)
    return RewardModel(model, tokenizer, head, of, classifier_pad_token_id(tokenizer) if skips_padding else None)


def _whole(name: str, folder: Path, config: RunConfig) -> RewardModel:
    import torch
    from safetensors import SafetensorError
    from torch import nn
    from transformers import AutoModelForSequenceClassification

    source = ModelSource(name, folder, "folder")
    plan = plan_device(config)
    if (folder / VALUE_HEAD).is_file():
        model: Any = load_model(source, config, plan)
        return RewardModel(model, load_tokenizer(source, config), _value_head(name, folder).to(model.device))
    bits = quantization_config(config, plan)
    trusted = resolve_trust_remote_code(source, config)
    arguments: dict[str, Any] = {"dtype": plan.torch_dtype, "trust_remote_code": trusted}
    if bits is not None:
        arguments |= {"quantization_config": bits, "device_map": {"": plan.place}}
    try:
        with no_progress_bars():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, **arguments
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{name} cannot be loaded: {first_line(error)} {EXPECTED}") from error
    if info.get("missing_keys"):
        raise ModelError(
            f"{name} lacks the weights {', '.join(sorted(info['missing_keys'])[:3])}, which would be randomly "
            "initialized."
        )
    if model.config.num_labels != 1:
        raise ModelError(f"{name} is a classifier with {model.config.num_labels} labels. {EXPECTED}")
    model.requires_grad_(requires_grad=False)
    compute_rows_alone(model)
    model = model if bits is not None else model.to(plan.device)
    tokenizer = load_tokenizer(source, config)
    if not type(model).__module__.startswith("transformers.") or not isinstance(
        getattr(model, HEAD_NAME, None), nn.Linear
    ):
        return RewardModel(model, tokenizer)  # its own code finds the token at which it reads a score
    head = model.score.to(torch.float32)
    return RewardModel(model, tokenizer, head, None, model.config.get_text_config().pad_token_id)


def _head_of(name: str, folder: Path) -> tuple[nn.Linear, bool]:
    """Head of a reward model that is an adapter, and whether its score is read at the last non-padding token."""
    if (folder / VALUE_HEAD).is_file():
        return _value_head(name, folder), False
    weights = _adapter_weights(name, folder)
    found = [value for key, value in weights.items() if key.endswith(f".{HEAD_NAME}.weight")]
    if not found:  # names in a pickle are known only after loading it
        raise ModelError(f"{name} is not a reward model: it has no reward head. {EXPECTED}")
    return _linear(name, found[0], None), True


def _adapter_weights(name: str, folder: Path) -> dict[str, Tensor]:
    """Weights of any shape by PEFT's names."""
    from pickle import UnpicklingError

    from peft import load_peft_weights
    from safetensors import SafetensorError

    try:
        weights: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu")
    except (SafetensorError, UnpicklingError, EOFError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"The weights of the adapter {name} are damaged, or contain more than tensors: {first_line(error)} "
            f"{REDOWNLOAD}"
        ) from error
    return weights


def _value_head(name: str, folder: Path) -> nn.Linear:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(folder / VALUE_HEAD)
    except SafetensorError as error:
        raise ModelError(f"{VALUE_HEAD} of {name} is damaged: {first_line(error)} {REDOWNLOAD}") from error
    if "v_head.summary.weight" not in stored:
        raise ModelError(f"{VALUE_HEAD} of {name} has no v_head.summary.weight. {EXPECTED}")
    return _linear(name, stored["v_head.summary.weight"], stored.get("v_head.summary.bias"))


def _linear(name: str, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    import torch
    from torch import nn

    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):  # noqa: PLR2004
        raise ModelError(f"{name} has a reward head of the shape {list(weight.shape)}. {EXPECTED}")
    if len(weight) != 1:
        raise ModelError(f"{name} is a classifier with {len(weight)} labels. {EXPECTED}")
    made = nn.Linear(weight.shape[1], 1, bias=bias is not None, dtype=torch.float32)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made


def _with_adapter(model: Any, name: str, folder: Path, adapter: str | None) -> Any:
    from peft import get_peft_model, set_peft_model_state_dict

    settings = adapter_settings(folder)
    settings.modules_to_save = sorted({*(settings.modules_to_save or ())} - {HEAD_NAME}) or None
    settings.inference_mode = True
    weights = _adapter_weights(name, folder)
    weights = {key: value for key, value in weights.items() if not key.endswith(f".{HEAD_NAME}.weight")}
    try:
        if adapter is None:
            model, adapter = get_peft_model(model, settings), "default"
        else:
            model.add_adapter(adapter, settings)
        result = set_peft_model_state_dict(model, weights, adapter)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"The reward model {name} does not fit its base: {first_line(error)}") from error
    apart = [*result.unexpected_keys, *(key for key in result.missing_keys if f".{adapter}." in key)]
    if apart:
        raise ModelError(
            f"The reward model {name} does not fit its base: {len(apart)} weights do not match, the first is "
            f"{apart[0]}. It was trained for {settings.base_model_name_or_path}."
        )
    for key, parameter in model.named_parameters():
        if f".{adapter}." in key:
            parameter.requires_grad = False
    return model


def _tokenizer(folder: Path, source: ModelSource | None, config: RunConfig) -> PreTrainedTokenizerBase:
    if (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(ModelSource(str(folder), folder, "folder"), config)
    return load_tokenizer(source or resolve_model(base_of_adapter(folder), config), config)
