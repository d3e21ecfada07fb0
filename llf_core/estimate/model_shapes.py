"""What a model's shapes say of the memory that its layers need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.config.model import EMBEDDED
from llf_core.config.paths import expanded
from llf_core.estimate.weight_count import LAYER, count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.safetensors_header import Shapes

_MATRIX, _EXPERTS = 2, 3  # dimensions of a linear layer's weight, and of one that holds all experts
_HEAD = 64  # width of a head where nothing tells


@dataclass(frozen=True)
class Architecture:
    """The sizes that decide how much a step keeps.

    Attributes:
        hidden: width of the hidden state.
        layers: how many transformer layers there are.
        inner: numbers a token that the linear layers of one layer read or write beside the hidden state.
        linears: linear layers of one layer.
        largest: parameters of the largest linear layer.
        heads: attention heads.
        vocabulary: rows of the embedding.
        outer: parameters outside the layers.
    """

    hidden: int
    layers: int
    inner: int
    linears: int
    largest: int
    heads: int
    vocabulary: int
    outer: int


def architecture(weights: Shapes, settings: Mapping[str, Any] | None = None) -> Architecture | None:
    """Sizes of a decoder, whatever its family calls its layers.

    Each linear layer reads or writes the hidden state on one side; its other side is what counts. Of experts, only
    those count that see a token.

    Args:
        weights: shape of every weight by its name.
        settings: the model's `config.json`.

    Returns:
        None where the names show no layers or no embedding.
    """
    settings = _text(settings or {})
    outer = {name: shape for name, shape in weights.items() if not LAYER.search(name)}
    embedding = max((shape for shape in outer.values() if len(shape) == _MATRIX), default=None)
    found = {name: int(match.group(1)) for name in weights if (match := LAYER.search(name))}
    if embedding is None or not found:
        return None
    vocabulary, hidden = embedding
    seen = int(settings.get("num_experts_per_tok") or settings.get("num_experts_per_token") or 2)
    sides, linears, largest = 0, 0, 0
    last = max(found.values())  # the first layers of some models have no experts
    for name, layer in found.items():
        shape = weights[name]
        if layer != last or hidden not in shape or len(shape) not in (_MATRIX, _EXPERTS):
            continue
        times = 1 if len(shape) == _MATRIX else min(seen, shape[0])
        sides += times * (sum(shape[-2:]) - hidden)
        linears += times
        largest = max(largest, shape[-1] * shape[-2])
    heads = settings.get("num_attention_heads") or settings.get("n_head") or max(1, hidden // _HEAD)
    return Architecture(hidden, last + 1, sides, linears, largest, int(heads), vocabulary, count(outer))


def settings_of(name: str) -> dict[str, Any]:
    """The `config.json` of the embedded model or of a folder; empty where there is none that can be read."""
    if name == EMBEDDED:
        return {"num_attention_heads": 9}
    try:
        value = json.loads((expanded(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the language model, where there are others beside it."""
    inner = settings.get("text_config")
    return inner if isinstance(inner, dict) else settings
