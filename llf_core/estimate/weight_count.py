"""Shapes of a model's weights, and the number of trained parameters, from file headers alone."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from llf_core.config.model import EMBEDDED
from llf_core.config.paths import expanded
from llf_core.config.safetensors_header import Shapes, read_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import RunConfig

LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
_LINEAR = 2
_LAYERS, _HIDDEN, _KEYS, _INNER, _VOCABULARY = 30, 576, 192, 1536, 49152  # SmolLM2-135M


def shapes(name: str) -> Shapes | None:
    """Read the shape of every weight of a model.

    Args:
        name: name of the embedded model, or a folder with safetensors files.

    Returns:
        Shapes by name; None if they are not known without querying a hub or reading a whole file.
    """
    if name == EMBEDDED:
        return _embedded()
    return read_shapes(expanded(name)) or None


def count(weights: Mapping[str, tuple[int, ...]]) -> int:
    """Number of parameters of some weights."""
    return sum(math.prod(shape) for shape in weights.values())


def trained(config: RunConfig, weights: Shapes) -> int | None:
    """Number of parameters that a config trains.

    Args:
        config: the run's config.
        weights: shapes of the model's weights by name.

    Returns:
        The number; None for a method that is not known here.
    """
    kind = config.get("finetuning_type")
    if kind == "full":
        return count(weights)
    if kind == "freeze":
        return _last_layers(weights, config.get("freeze_trainable_layers"))
    if kind == "lora":
        return _adapters(weights, config.get("lora_rank"), config.get("lora_target"))
    return None


def _adapters(weights: Shapes, rank: int, targets: tuple[str, ...]) -> int:
    """Parameters of LoRA adapters: `rank * (in + out)` for each adapted linear layer."""
    total = 0
    for name, shape in weights.items():
        module = name.removesuffix(".weight").rsplit(".", 1)[-1]
        wanted = LAYER.search(name) if "all" in targets else module in targets
        if wanted and len(shape) == _LINEAR:
            total += rank * sum(shape)
    return total


def _last_layers(weights: Shapes, number: int) -> int:
    """Parameters of the last layers; of the first ones if `number` is negative."""
    layers = {name: int(found.group(1)) for name in weights if (found := LAYER.search(name))}
    depth = max(layers.values(), default=-1) + 1
    chosen = range(depth - number, depth) if number > 0 else range(-number)
    return count({name: weights[name] for name, layer in layers.items() if layer in chosen})


def _embedded() -> Shapes:
    one_layer: Shapes = {
        "self_attn.q_proj": (_HIDDEN, _HIDDEN),
        "self_attn.k_proj": (_KEYS, _HIDDEN),
        "self_attn.v_proj": (_KEYS, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, _HIDDEN),
        "mlp.gate_proj": (_INNER, _HIDDEN),
        "mlp.up_proj": (_INNER, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _INNER),
        "input_layernorm": (_HIDDEN,),
        "post_attention_layernorm": (_HIDDEN,),
    }
    layers = {
        f"model.layers.{layer}.{name}.weight": shape for layer in range(_LAYERS) for name, shape in one_layer.items()
    }
    return {"model.embed_tokens.weight": (_VOCABULARY, _HIDDEN), **layers, "model.norm.weight": (_HIDDEN,)}
