from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.runs.description import place_text

if TYPE_CHECKING:
    from collections.abc import Mapping

METHODS = {"lora": "LoRA", "full": "full", "freeze": "freeze", "oft": "OFT"}


def describe_run(
    config: dict[str, Any], data_event: dict[str, Any] | None, mirror: Mapping[str, object] | None = None
) -> str:
    """Describe a run: `smollm2-135m-instruct, DPO, LoRA rank 8, pairs (949 examples), 2 processes (DDP)`.

    Unknown parts and `sft`, the default stage, are omitted; empty if nothing is known.
    """
    parts = []
    model = config.get("model_name_or_path")
    if model:
        parts.append(_short(model))
    stage = str(config.get("stage") or "sft")
    if stage != "sft":
        loss = config.get("pref_loss")
        parts.append(stage.upper() if loss in (None, "sigmoid") or stage != "dpo" else f"{stage.upper()} ({loss})")
    method = str(config.get("finetuning_type", "lora"))
    if config:
        text = METHODS.get(method, method)
        if method == "lora":
            rank = config.get("lora_rank")
            text += "" if rank is None else f" rank {rank}"
            if config.get("quantization_bit"):
                text = f"Q{text}, {config['quantization_bit']} bits"
        parts.append(text)
    data = config.get("dataset")
    if data:
        names = data if isinstance(data, list) else str(data).split(",")
        text = ", ".join(_short(name) for name in names)
        if data_event and isinstance(data_event.get("examples"), int):
            text += f" ({with_unit(data_event['examples'], 'example')})"
        parts.append(text)
    parts.append(place_text(config, mirror))
    return ", ".join(filter(None, parts))


def _short(name: object) -> str:
    """The last two parts of a path; a hub id or name unchanged."""
    text = str(name).strip()
    parts = [part for part in text.split("/") if part]
    return text if len(parts) <= 2 else "/".join(parts[-2:])  # noqa: PLR2004 - a hub id has two
