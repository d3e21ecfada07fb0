from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from llf_core.config.model import EMBEDDED
from llf_core.config.paths import expanded
from llf_core.config.weight_shapes import LAYER, count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.weight_shapes import Shapes

_MATRIX, _EXPERTS = 2, 3  # dimensions of a linear layer's weight, and of one that holds all experts
_HEAD = 64  # width of a head where nothing tells
_OTHER_PART = re.compile(
    r"(?:^|\.)(?:vision\w*|visual|image\w*|audio\w*|speech\w*|multi_modal_projector|mm_projector|connector|aligner|"
    r"projector|merger|embed_vision|embed_audio|qformer)\."
)
"""Parts of names of weights of encoders and projectors, see `llf_core.models.architecture`."""
_VISION_PART = re.compile(r"(?:^|\.)(?:vision\w*|visual|image\w*)\.")
"""The same of image encoders."""
_VISION_LAYER = re.compile(r"\.(?:layers?|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Architecture:
    """Sizes of a decoder.

    Attributes:
        inner: sum over the linear layers of one layer of the dimension that is not the hidden size.
        largest: number of parameters of the largest linear layer.
        outer: number of parameters outside the layers.
    """

    hidden: int
    layers: int
    inner: int
    linears: int
    largest: int
    heads: int
    vocabulary: int
    outer: int

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding."""
        return self.outer < 2 * self.vocabulary * self.hidden


def language_weights(weights: Shapes, settings: Mapping[str, object]) -> Shapes:
    """Select the weights of the language model by the content of its `config.json`."""
    if not is_multimodal(settings):
        return weights
    found = {name: shape for name, shape in weights.items() if not _OTHER_PART.search(name)}
    return found if any(map(LAYER.search, found)) else weights


def encoder(weights: Shapes) -> Architecture | None:
    """Derive the sizes of a model's vision encoder, without vocabulary; None if the names show no such layers.

    The smallest size that all linear layers of a block share is the hidden size. No shape shows the number of heads:
    each is taken to be 64 wide (ViT-Base and ViT-Large, arXiv 2010.11929, table 1).
    """
    found: dict[str, list[tuple[int, ...]]] = {}
    indices: set[int] = set()
    for name, shape in weights.items():
        if (match := _VISION_LAYER.search(name)) and _VISION_PART.search(name) and len(shape) == _MATRIX:
            path = name[: match.start()]
            found.setdefault(path, []).append(shape) if match.group(1) == "0" else None
            indices.add(int(match.group(1)))
    if not found:
        return None
    shapes = max(found.values(), key=lambda some: sum(math.prod(one) for one in some))
    shared = set.intersection(*({*shape} for shape in shapes))
    if not shared:
        return None
    hidden = min(shared)
    sides = sum(sum(shape) - hidden for shape in shapes)
    largest = max(math.prod(shape) for shape in shapes)
    return Architecture(hidden, max(indices) + 1, sides, len(shapes), largest, max(1, hidden // _HEAD), 0, 0)


def is_multimodal(settings: Mapping[str, object]) -> bool:
    """Whether the content of a `config.json` names an encoder of images or audio."""
    return isinstance(settings.get("vision_config"), dict) or isinstance(settings.get("audio_config"), dict)


def architecture(weights: Shapes, settings: Mapping[str, object] | None = None) -> Architecture | None:
    """Derive the sizes of a decoder of any model family from its weights; None without layers or embedding.

    Each linear layer has the hidden size on one side; its other side is counted. The last layer stands for all, since
    the first layers of some models have no experts. Of experts, only the active ones per token are counted.

    Args:
        settings: content of `config.json`, for the number of heads and of active experts. By default, heads have 64
            values and two experts are active.
    """
    settings = _text(settings or {})
    outer = {name: shape for name, shape in weights.items() if not LAYER.search(name)}
    embedding = max((shape for shape in outer.values() if len(shape) == _MATRIX), default=None)
    found = {name: int(match.group(1)) for name in weights if (match := LAYER.search(name))}
    if embedding is None or not found:
        return None
    vocabulary, hidden = embedding
    seen = max(1, _number(settings, "num_experts_per_tok", "num_experts_per_token", default=2))
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
    heads = _number(settings, "num_attention_heads", "n_head", default=max(1, hidden // _HEAD))
    return Architecture(hidden, last + 1, sides, linears, largest, heads, vocabulary, count(outer))


def read_model_config(name: str) -> dict[str, object]:
    """Content of the `config.json` of a folder, or of the embedded model its number of heads; empty if unreadable."""
    if name == EMBEDDED:
        return {"num_attention_heads": 9}
    try:
        value = json.loads((expanded(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(settings: Mapping[str, object], *names: str, default: int) -> int:
    """The first of some settings that is not 0."""
    found = next((value for name in names if (value := settings.get(name))), default)
    return int(cast("float", found))  # which refuses what is no number


def _text(settings: Mapping[str, object]) -> Mapping[str, object]:
    inner = settings.get("text_config")
    return inner if isinstance(inner, dict) else settings
