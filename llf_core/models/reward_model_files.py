"""Finds reward models, the config of their run, and their base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config import RunConfig
from llf_core.config.name_checks.models import is_path, may_be_hub_id, meant_instead, shown_name
from llf_core.config.paths import expanded, is_there
from llf_core.models.adapter_config import adapter_settings
from llf_core.models.adapter_folder import SAFETENSORS_FILE, check_pickle
from llf_core.models.errors import ModelError
from llf_core.models.header_check import check_sizes
from llf_core.models.model_folder import check_files, check_shards, read_config
from llf_core.models.resolve import resolve_model
from llf_core.models.reward_head import HEAD_WEIGHT
from llf_core.models.stored_tensors import read_header
from llf_core.runs import RunFolder, home
from llf_core.runs.config_file import run_config
from llf_core.runs.folder import RUN_ID
from llf_core.untrusted import real_path

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.models.model_source import ModelSource

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
