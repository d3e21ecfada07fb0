"""Finds adapters (local folders, subfolders of them, repositories of a hub), and checks their `adapter_config.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.name_checks.models import is_path, may_be_hub_id, meant_instead, shown_name
from llf_core.config.paths import expanded, is_there
from llf_core.models.errors import ModelError, first_line
from llf_core.models.header_check import INTEGERS, damaged_json, read_header
from llf_core.models.model_folder import REDOWNLOAD, check_text_files, read_json_object
from llf_core.models.reward_model import HEAD_NAME

if TYPE_CHECKING:
    from pathlib import Path
    from types import UnionType

    from llf_core.config import RunConfig

SAFETENSORS_FILE, PICKLE_FILE = "adapter_model.safetensors", "adapter_model.bin"
MAX_LISTED = 5


def find_adapter(name: str, config: RunConfig) -> Path:
    """Find an adapter: a local folder, the `output` of a run, or a hub repository, which is downloaded if needed.

    Its content is not checked.

    Raises:
        ModelError: it does not exist, lacks its config, weights or `adapter_folder`, or has only pickle, and
            `allow_pickle` is off.
    """
    folder = expanded(name)
    if not name.strip() or not is_there(folder):
        if is_path(name) or "/" not in name or not may_be_hub_id(name):
            raise ModelError(
                f"No adapter at {shown_name(name)}. Expected a folder with adapter_config.json, or a hub id."
                f"{meant_instead(name, config.model.cache_dir)}"
            )
        from llf_core.models.hub import hub_adapter

        folder = hub_adapter(name, config)
    folder = _subfolder(folder, name, config)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{name} has no adapter_config.json, so it is not an adapter. Expected a folder that PEFT saved, such as "
            "the output of a LoRA run."
        )
    if not (folder / SAFETENSORS_FILE).is_file():
        if not (folder / PICKLE_FILE).is_file():
            raise ModelError(f"{name} has no {SAFETENSORS_FILE}. Copy or download the adapter again.")
        check_pickle(folder, name, config)
    return folder


def check_pickle(folder: Path, name: str, config: RunConfig) -> None:
    """Refuse an adapter that has its weights only as pickle, unless the config allows that."""
    if (folder / SAFETENSORS_FILE).is_file() or not (folder / PICKLE_FILE).is_file() or config.model.allow_pickle:
        return
    raise ModelError(
        f"{name} has its weights only as pickle ({PICKLE_FILE}), which can run code while it loads. "
        "Set allow_pickle: true if you trust its source."
    )


def _subfolder(folder: Path, name: str, config: RunConfig) -> Path:
    """The subfolder `adapter_folder` of an adapter's folder; other adapters than those it is for may have none."""
    inside = config.model.adapter_folder
    if inside is None:
        return folder
    found = folder / inside
    if not (inside.startswith("/") or ".." in found.parts) and is_there(found) and found.is_dir():
        return found
    if name not in (config.model.adapter_name_or_path or ()):
        return folder
    others = sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))
    has = f" It has adapters in {', '.join(others[:MAX_LISTED])}." if others else ""
    raise ModelError(
        f"{shown_name(name)} has no subfolder {shown_name(inside)} (adapter_folder).{has} Expected a subfolder with "
        "adapter_config.json, or no adapter_folder."
    )


def without_adapter_folder(config: RunConfig) -> RunConfig:
    """Replace the adapters of a config by the subfolders that `adapter_folder` selects, so that others can be added."""
    if config.model.adapter_folder is None:
        return config
    keys = [key for key in ("adapter_name_or_path", "ref_model_adapters") if config.get(key)]
    found = {key: [str(find_adapter(name, config)) for name in config.get(key)] for key in keys}
    return config.replace(adapter_folder=None, **found)


MAX_NAMES = 10_000
"""Maximum length of a list in an adapter's config: PEFT compares each entry with each module."""
NAME_TYPES: Any = str | list | None

FIELD_TYPES: dict[str, type | UnionType] = {
    "peft_type": str, "base_model_name_or_path": str | None, "r": int, "lora_alpha": int | float,
    "lora_dropout": int | float, "bias": str, "target_modules": NAME_TYPES, "exclude_modules": NAME_TYPES,
    "layers_pattern": NAME_TYPES, "layers_to_transform": int | list | None, "modules_to_save": list | None,
    "target_parameters": list | None, "rank_pattern": dict | None, "alpha_pattern": dict | None,
    "trainable_token_indices": dict | list | None, "layer_replication": list | None,
}  # fmt: skip


def adapter_settings(folder: Path) -> Any:
    """Read an adapter's config and check its values, which PEFT uses without a check.

    A sequence classifier's is returned as that of a causal model whose head `score` is saved with the adapter.

    Raises:
        ModelError: the config is damaged, unreadable, of an unknown type, or has a value of a wrong type.
    """
    from peft import PeftConfig, TaskType

    path = folder / "adapter_config.json"
    again = "Copy or download the adapter again."
    check_text_files(folder)
    if damaged := damaged_json(folder):
        raise ModelError(damaged.replace(REDOWNLOAD, again))
    stored = read_json_object(path)
    odd = next(
        (key for key, kinds in FIELD_TYPES.items() if key in stored and not isinstance(stored[key], kinds)), None
    )
    if odd is not None:
        raise ModelError(f"{path} has a value of an unexpected type for {odd}: {str(stored[odd])[:50]}. {again}")
    long = next(
        (key for key in FIELD_TYPES if isinstance(stored.get(key), list) and len(stored[key]) > MAX_NAMES), None
    )
    if long is not None:
        raise ModelError(f"{path} lists {len(stored[long]):,} in {long}. Expected at most {MAX_NAMES:,}. {again}")
    try:
        settings = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        raise ModelError(f"{path} is not a valid adapter config: {first_line(error)} {again}") from error
    if settings.task_type == TaskType.SEQ_CLS:
        settings.task_type = TaskType.CAUSAL_LM
        settings.modules_to_save = sorted({*(settings.modules_to_save or ()), HEAD_NAME} - {"classifier"})
    return settings


def check_stored_weights(settings: object, folder: Path) -> None:
    """Refuse damaged weights, and a rank larger than the weights allow, before PEFT allocates memory for it.

    Raises:
        ModelError: the file is damaged, has integers, or holds fewer numbers than a rank.
    """
    tensors = read_header(folder / SAFETENSORS_FILE)
    whole = next((name for name, tensor in tensors.items() if tensor.dtype in INTEGERS), None)
    if whole is not None:
        raise ModelError(
            f"{folder / SAFETENSORS_FILE} has integers as {whole[:100]} ({tensors[whole].dtype}). Expected "
            "floating-point numbers. Copy or download the adapter again."
        )
    numbers = sum(tensor.count for tensor in tensors.values())
    ranks = {"r": getattr(settings, "r", 0)} | (getattr(settings, "rank_pattern", None) or {})
    wrong = next((key for key, rank in ranks.items() if isinstance(rank, int) and rank > numbers), None)
    if wrong is not None:
        raise ModelError(
            f"{folder / 'adapter_config.json'} cannot belong to these weights: {wrong[:100]} is {ranks[wrong]:,}, and "
            f"they hold {numbers:,} numbers in total. Copy or download the adapter again."
        )


def keep_from_compiling(settings: object) -> None:
    """Keep PEFT from compiling its CUDA extension for each BOFT layer where one butterfly factor makes no use of it."""
    if getattr(settings, "boft_n_butterfly_factor", 0) == 1:
        from peft.tuners.boft import layer

        layer._FBD_CUDA = False  # noqa: SLF001 - no public name; None means that it is not tried yet
