"""Checks of a model's folder from file names and headers."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError
from llf_core.untrusted import MODEL_SETTINGS_BYTES, NotPlainError, UnreadableError, leads_to_file, open_file
from llf_core.untrusted.plain_yaml import yaml_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
INDEX = "model.safetensors.index.json"
MAX_LIST_BYTES = 128 << 20
"""The largest `tokenizer.json` have 80 million bytes."""
SETTINGS_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "adapter_config.json", "chat_template.jinja",
)  # fmt: skip
TEXT_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
MAX_CARD_BYTES = 1 << 20
REDOWNLOAD = "Copy or download the model again."
NON_WEIGHT_FILES = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt")


def weight_files(names: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Sort file names of a model's top folder into safetensors, pickles and GGUF files.

    Adapters, hidden files and a Trainer's pickles, such as `optimizer.pt`, are left out.
    """
    top = sorted(name for name in names if "/" not in name and not name.startswith(("adapter_model", ".")))
    safe = [name for name in top if name.endswith(".safetensors")]
    pickles = [name for name in top if name.endswith(PICKLE_SUFFIXES) and name not in NON_WEIGHT_FILES]
    return safe, pickles, [name for name in top if name.lower().endswith(".gguf")]


def check_files(name: str, names: Iterable[str], *, allow_pickle: bool, weights: bool = True) -> None:
    """Refuse a folder that cannot be loaded as a model, by its file names.

    Args:
        weights: whether weights are needed; not where training starts with random ones.

    Raises:
        ModelError: says what is missing and what to do.
    """
    names = set(names)
    safe, pickles, ggufs = weight_files(names)
    if "adapter_config.json" in names and not safe and not pickles:
        raise ModelError(
            f"{name} is an adapter, not a model. Set adapter_name_or_path to it, and model_name_or_path to its base "
            "model."
        )
    if not safe and ggufs:
        raise ModelError(
            f"{name} holds {len(ggufs)} GGUF files. Give the path of one, for example {ggufs[0]}, as "
            "model_name_or_path."
        )
    if "config.json" not in names:
        raise ModelError(
            f"{name} has no config.json, so it is not a model folder. "
            "Expected a folder with config.json, *.safetensors and the tokenizer's files."
        )
    if not weights:
        return
    if not safe and not pickles:
        raise ModelError(
            f"{name} has no weights. Expected *.safetensors beside its config.json; was it copied or downloaded "
            "completely?"
        )
    if not safe and not allow_pickle:
        raise ModelError(
            f"{name} has its weights only as pickle ({pickles[0]}), which can run code while it loads. "
            "Use a model with *.safetensors, or set allow_pickle: true if you trust its source."
        )


def check_shards(folder: Path) -> None:
    """Check that the index of a sharded model, if there is one, names existing safetensors files of the folder.

    transformers reports a missing one only after loading the others.

    Raises:
        ModelError: the index is invalid, or a file is missing or no safetensors file.
    """
    path = folder / INDEX
    if not path.is_file():
        return
    index = read_json_object(path)
    named = index.get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelError(f"{path} has no weight_map that names a file for each weight. {REDOWNLOAD}")
    files = sorted(set(named.values()))
    here = {file.name for file in folder.iterdir() if file.is_file()}
    odd = next((name for name in files if not name.endswith(".safetensors") or "/" in name), None)
    if odd is not None:
        raise ModelError(f"{path} names {odd[:100]!r}. Expected *.safetensors files of the same folder. {REDOWNLOAD}")
    missing = [name for name in files if name not in here]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing):,} of its {len(files):,} weight files, the first is {missing[0][:100]}. "
            f"{REDOWNLOAD}"
        )
    if not isinstance(index.get("metadata"), dict):
        raise ModelError(f"{path} has metadata that are not a JSON object. {REDOWNLOAD}")


def check_text_files(folder: Path) -> None:
    """Refuse a model or adapter with a text file that is not a regular file, or too large to be one of a model.

    Libraries would wait for a pipe forever, or read all of a huge file into memory.

    Raises:
        ModelError: a file is not regular, too large, unreadable or a broken link.
    """
    for path in sorted(folder.iterdir()):
        if path.name.endswith(TEXT_SUFFIXES) and not path.is_dir():
            try:
                os.close(_opened(path))
            except FileNotFoundError:
                raise ModelError(f"{path} is a broken link. {REDOWNLOAD}") from None


def _opened(path: Path) -> int:
    """Links are followed, since a hub's cache consists of links."""
    most = MODEL_SETTINGS_BYTES if path.name in SETTINGS_FILES else MAX_LIST_BYTES
    try:
        descriptor = open_file(path.resolve())
    except RuntimeError as error:  # what pathlib raises for a link to itself, up to Python 3.12
        raise ModelError(f"{path} is a link that leads back to itself. {REDOWNLOAD}") from error
    except UnreadableError as error:
        raise ModelError(f"{path} cannot be read: {error} {REDOWNLOAD}") from error
    size = os.fstat(descriptor).st_size
    if size > most:
        os.close(descriptor)
        raise ModelError(f"{path} has {size:,} bytes. Expected at most {most:,}. {REDOWNLOAD}")
    return descriptor


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of an untrusted model's folder.

    Raises:
        ModelError: the file contains anything else, is not a regular file, too large or unreadable.
    """
    descriptor = _opened(path)
    try:
        with os.fdopen(descriptor, "rb") as file:
            value = json.loads(file.read().decode("utf-8"))
    except RecursionError as error:
        raise ModelError(f"{path} is nested too deeply. {REDOWNLOAD}") from error
    except ValueError as error:  # includes `UnicodeDecodeError`
        raise ModelError(f"{path} is not valid JSON ({str(error)[:100]}). {REDOWNLOAD}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object. {REDOWNLOAD}")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """Read the folder's `config.json` and refuse settings that would make transformers download code.

    Raises:
        ModelError: it is not a JSON object, unreadable, or names a hub kernel, which no config of a run can allow.
    """
    path = folder / "config.json"
    config = read_json_object(path)
    kernel = next((value for value in _implementations(config) if "/" in value), None)
    if kernel is not None:
        raise ModelError(
            f"{path} names a hub kernel, {kernel[:100]!r}, whose code would run on this machine. It was not "
            "downloaded. Remove the key from a copy of the model, and choose the attention with flash_attn."
        )
    return config


def _implementations(config: dict[str, object]) -> Iterator[str]:
    """Values by which a config and its sub-configs choose implementations of attention or experts."""
    todo: list[tuple[bool, object]] = [(False, config)]
    while todo:
        chosen, value = todo.pop()
        if isinstance(value, dict):
            todo += [(chosen or "implementation" in key, inner) for key, inner in value.items()]
        elif chosen and isinstance(value, str):
            yield value


def card_license(folder: Path) -> str | None:
    """License in the front matter of the model card; None if there is none."""
    card = folder / "README.md"
    if not leads_to_file(card):
        return None
    try:
        with card.open("rb") as file:
            text = file.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return None
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return None
    try:
        front = yaml_value(text[4 : text.index("\n---", 4)])
    except NotPlainError:
        return None  # a broken card costs only the license
    name = front.get("license") if isinstance(front, dict) else None
    return name if isinstance(name, str) else None
