"""Reads and checks an adapter's `adapter_config.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.models.adapter_folder import SAFETENSORS_FILE
from llf_core.models.errors import ModelError, first_line
from llf_core.models.header_check import damaged_json
from llf_core.models.model_folder import REDOWNLOAD, check_text_files, read_json_object
from llf_core.models.reward_head import HEAD_NAME
from llf_core.models.stored_tensors import INTEGERS, read_header

if TYPE_CHECKING:
    from pathlib import Path
    from types import UnionType

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
