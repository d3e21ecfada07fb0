"""What a run leaves: an adapter or a whole model that loads with plain peft and transformers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llf_core.models.card import model_card
from llf_core.models.folder import read_config
from llf_core.models.load import mend_generation_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from llf_core.config import RunConfig
    from llf_core.models.source import ModelSource


def save_output(  # noqa: PLR0913 - the parts of a result
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    source: ModelSource,
    config: RunConfig,
    metrics: Mapping[str, Any],
) -> None:
    """Writes adapter or model, tokenizer and model card; weights as safetensors only.

    An adapter stays one where others can load its base: a hub id, or a path outside `LLF_HOME`. Where they cannot
    (a base under `LLF_HOME`, or one that adapters were merged into before the training), the adapter is merged and
    the whole model is written.

    Args:
        model: as trained, PEFT's wrapper or the model itself; a whole merge leaves it merged.
        tokenizer: the run's tokenizer.
        folder: made where it is not there yet.
        source: the base, from `resolve_model`.
        config: the run's config.
        metrics: last values for the card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapter = hasattr(model, "peft_config")
    if adapter and (source.portable_name is None or getattr(model.get_base_model(), "llf_merged", None)):
        model = _merged(model, source, config)
        adapter = False
    if adapter:
        for settings in model.peft_config.values():
            settings.base_model_name_or_path = source.portable_name
            settings.revision = source.revision if source.kind == "hub" else None
            settings.inference_mode = True
        model.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)
    else:
        _save_whole(model, folder, config)
    tokenizer.save_pretrained(folder)
    text = model_card(source, config, metrics, adapter=adapter, chat=bool(tokenizer.chat_template))
    (folder / "README.md").write_text(text, encoding="utf-8")


def _save_whole(model: Any, folder: Path, config: RunConfig) -> None:
    """Saves all weights in the dtype that most of a base's are stored in, where training kept float32 masters."""
    mend_generation_config(model)
    model.save_pretrained(folder)
    written = read_config(folder)
    written.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _merged(model: Any, source: ModelSource, config: RunConfig) -> Any:
    """The base with the adapter added to its weights; a quantized base is loaded again for it, unquantized."""
    return model.merge_and_unload()
