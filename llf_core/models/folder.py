"""What lies in a model's folder, told from file names and headers alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llf_core.door import NotPlainError
from llf_core.door.plain_yaml import yaml_value
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt")


def weight_files(names: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Sorts file names: safetensors, pickles, GGUF; only those of the folder itself, adapters left out."""
    top = sorted(name for name in names if "/" not in name and not name.startswith(("adapter_model", ".")))
    safe = [name for name in top if name.endswith(".safetensors")]
    pickles = [name for name in top if name.endswith(PICKLES) and name not in NO_WEIGHTS]
    return safe, pickles, [name for name in top if name.lower().endswith(".gguf")]


def check_files(where: str, names: Iterable[str], *, allow_pickle: bool) -> None:
    """Refuses what cannot be loaded as a model.

    Args:
        where: the model's name, for the message.
        names: its files, relative to its folder.
        allow_pickle: the config's `allow_pickle`.

    Raises:
        ModelError: one sentence: what is missing, and what to do.
    """
    names = set(names)
    safe, pickles, ggufs = weight_files(names)
    if "adapter_config.json" in names and not safe and not pickles:
        raise ModelError(
            f"{where} is an adapter, not a model. Give it as adapter_name_or_path, and its base as model_name_or_path."
        )
    if not safe and ggufs:
        raise ModelError(
            f"{where} holds {len(ggufs)} GGUF files. Give the path of one, for example {ggufs[0]}, as "
            "model_name_or_path."
        )
    if "config.json" not in names:
        raise ModelError(
            f"{where} has no config.json, so it is not a model folder. "
            "Expected a folder with config.json, *.safetensors and the tokenizer's files."
        )
    if not safe and not pickles:
        raise ModelError(
            f"{where} has no weights. Expected *.safetensors beside its config.json; was it copied or downloaded "
            "completely?"
        )
    if not safe and not allow_pickle:
        raise ModelError(
            f"{where} has its weights only as pickle ({pickles[0]}), which can run code while it loads. "
            "Take a model with *.safetensors, or set allow_pickle: true if you trust where it comes from."
        )


def check_shards(folder: Path) -> None:
    """Refuses a folder whose index names weight files that are not there.

    Raises:
        ModelError: naming the first missing file.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(f"{index} cannot be read ({str(error)[:100]}). Copy or download the model again.") from error
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of its {len(named)} weight files, the first is {missing[0]}. "
            "Copy or download the model again."
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        ModelError: it is no JSON object.
    """
    path = folder / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ModelError(f"{path} is nested too deeply. Copy or download the model again.") from error
    except ValueError as error:
        why = str(error)[:100]
        raise ModelError(f"{path} is not valid JSON ({why}). Copy or download the model again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object. Copy or download the model again.")
    return value


def card_license(folder: Path) -> str | None:
    """The licence that the model card's front matter names."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return None
    try:
        front = yaml_value(text[4 : text.index("\n---", 4)])
    except NotPlainError:
        return None  # a card is for people; a broken one costs only its licence line
    name = front.get("license") if isinstance(front, dict) else None
    return name if isinstance(name, str) else None
