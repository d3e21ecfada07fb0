"""Whether the files of a model can be what they say, by arithmetic: before any memory is taken for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError
from llf_core.models.folder import read_config, weight_files
from llf_core.models.weights import stored_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JSON_FILES = (
    "config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json",
    "preprocessor_config.json", "processor_config.json", "adapter_config.json",
)  # fmt: skip
PACKED = 16
"""How many numbers of a model one stored number may hold at most (2 bits in an int32)."""
SHARED = 1000
"""Layers beyond the number of stored tensors: some models use the same weights in several layers."""
LONGEST = 2**31
"""Positions beyond which no model was made."""
PAIRS = (("vocab_size", "hidden_size"), ("hidden_size", "intermediate_size"), ("num_attention_heads", "head_dim"))
"""Sizes whose product is not more than the numbers of one weight."""
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "num_attention_heads", "num_key_value_heads")
AGAIN = "Copy or download the model again."


def check_sound(folder: Path) -> None:
    """Refuses a model's folder whose config promises what its weights cannot hold.

    Args:
        folder: with a `config.json` and weights.

    Raises:
        ModelError: naming the file, the value and what the weights hold.
    """
    config = read_config(folder)
    tensors = stored_tensors(folder)
    numbers, count = PACKED * sum(tensor.count for tensor in tensors.values()), len(tensors)
    if not tensors:
        _, pickles, _ = weight_files(file.name for file in folder.iterdir())
        numbers = PACKED * sum((folder / name).stat().st_size for name in pickles)
        count = numbers
    layers = config.get("num_hidden_layers")
    if type(layers) is int and layers < 1:
        raise ModelError(f"{folder / 'config.json'} says that num_hidden_layers is {_shown(layers)}. {AGAIN}")
    for part in _parts(config):
        wrong = _too_large(part, numbers, count)
        if wrong:
            raise ModelError(f"{folder / 'config.json'} cannot belong to these weights: {wrong}. {AGAIN}")


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
    for name in JSON_FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except RecursionError:
            return f"{path} is nested too deeply. {AGAIN}"
        except ValueError as error:  # of Unicode too
            return f"{path} is not valid JSON ({str(error)[:100]}). {AGAIN}"
        if not isinstance(value, dict):
            return f"{path} holds no JSON object. {AGAIN}"
    return ""
