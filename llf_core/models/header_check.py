"""Whether the files of a model can be what they say, by arithmetic: before any memory is taken for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError
from llf_core.models.model_folder import AGAIN, check_texts, read_config, read_object, weight_files
from llf_core.models.stored_tensors import INTEGERS, stored_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JSON_FILES = (
    "config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json",
    "preprocessor_config.json", "processor_config.json", "adapter_config.json",
)  # fmt: skip
MOST_LABELS = 1_000_000
PACKED = 16
"""How many numbers of a model one stored number may hold at most (2 bits in an int32)."""
SHARED = 1000
"""Layers beyond the number of stored tensors: some models use the same weights in several layers."""
LONGEST = 2**31
"""Positions beyond which no model was made."""
LEAST = {
    "num_hidden_layers": 1, "hidden_size": 1, "vocab_size": 1, "num_attention_heads": 1, "num_key_value_heads": 0,
    "intermediate_size": 0, "head_dim": 0,
}  # fmt: skip
"""Sizes that a model cannot do without; of some, 0 stands for none."""
PAIRS = (("vocab_size", "hidden_size"), ("hidden_size", "intermediate_size"), ("num_attention_heads", "head_dim"))
"""Sizes whose product is not more than the numbers of one weight."""
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "num_attention_heads", "num_key_value_heads")


def check_sound(folder: Path) -> None:
    """Refuses a model's folder whose config promises what its weights cannot hold.

    Args:
        folder: with a `config.json` and weights.

    Raises:
        ModelError: naming the file, the value and what the weights hold.
    """
    check_texts(folder)
    config = read_config(folder)
    tensors = stored_tensors(folder)
    numbers, count = PACKED * sum(tensor.count for tensor in tensors.values()), len(tensors)
    if not tensors:
        _, pickles, _ = weight_files(file.name for file in folder.iterdir())
        numbers = PACKED * sum((folder / name).stat().st_size for name in pickles)
        count = numbers
    path = folder / "config.json"
    if wrong := _odd_value(config):
        raise ModelError(f"{path} says that {wrong}. {AGAIN}")
    whole = next((name for name, one in tensors.items() if name.endswith(".weight") and one.dtype in INTEGERS), None)
    if whole is not None and not config.get("quantization_config"):
        raise ModelError(
            f"{folder} has integers as {whole[:100]} ({tensors[whole].dtype}), and no quantization_config that says "
            f"what they stand for. {AGAIN}"
        )
    for part in _parts(config):
        wrong = _too_large(part, numbers, count)
        if wrong:
            raise ModelError(f"{path} cannot belong to these weights: {wrong}. {AGAIN}")


def _odd_value(config: dict[str, Any]) -> str:
    """Which value of a config no model has; empty where none is."""
    for key, least in LEAST.items():
        value = config.get(key)
        if type(value) is int and value < least:
            return f"{key} is {_shown(value)}. Expected at least {least}"
    labels = next((part["num_labels"] for part in _parts(config) if _large(part.get("num_labels"))), None)
    if labels is not None:
        return f"num_labels is {_shown(labels)}. Expected at most {MOST_LABELS:,}"
    for key, value in config.items():
        if key.endswith(("dropout", "pdrop")) and isinstance(value, int | float) and not 0 <= value <= 1:
            return f"{key[:100]} is {value:g}. Expected a share from 0 to 1"
    if not isinstance(config.get("model_type", ""), str):
        return f"model_type is {str(config['model_type'])[:100]}. Expected a text"
    if not isinstance(config.get("quantization_config"), dict | None):
        return f"quantization_config is {str(config['quantization_config'])[:100]}. Expected an object"
    return ""


def _large(labels: Any) -> bool:
    """Whether so many labels, each of which transformers gives a name, would fill the memory."""
    return isinstance(labels, int) and labels > MOST_LABELS


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A config, and those of its parts (text, vision)."""
    yield config
    yield from (value for key, value in config.items() if key.endswith("_config") and isinstance(value, dict))


def _too_large(config: dict[str, Any], numbers: int, tensors: int) -> str:
    """Which size is too large for the weights; empty where none is."""

    def size(key: str) -> int:
        value = config.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    layers, positions = size("num_hidden_layers"), size("max_position_embeddings")
    if layers > tensors + SHARED:
        return f"num_hidden_layers is {_shown(layers)}, and they are {tensors:,} tensors"
    if positions > LONGEST:
        return f"max_position_embeddings is {_shown(positions)}. Expected at most {LONGEST:,}"
    for one, other in PAIRS:
        if max(size(one), 1) * max(size(other), 1) > numbers:
            key = one if size(one) > size(other) else other
            return f"{key} is {_shown(size(key))}, and they hold {numbers // PACKED:,} numbers in all"
    most = next((key for key in COUNTS if size(key) > numbers), None)
    return "" if most is None else f"{most} is {_shown(size(most))}, and they hold {numbers // PACKED:,} numbers in all"


def _shown(value: int) -> str:
    return f"{value:,}" if abs(value) < 10**15 else f"{value:.3g}"


def damaged_json(folder: Path) -> str:
    """Which JSON file of a folder holds no JSON object, as a sentence; empty where all do."""
    try:
        for path in (folder / name for name in JSON_FILES):
            if path.is_file():
                read_object(path)
    except ModelError as error:
        return str(error)
    return ""
