from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.loaded_shapes import loaded_shapes
from llf_core.config.model import EMBEDDED
from llf_core.config.paths import expanded
from llf_core.config.safetensors_header import read_shapes

if TYPE_CHECKING:
    from llf_core.config.weight_shapes import Shapes

_LAYERS, _HIDDEN, _KEYS, _INNER, _VOCABULARY = 30, 576, 192, 1536, 49152  # SmolLM2-135M


def weight_shapes(name: str) -> Shapes | None:
    """Shape of every weight of the embedded model or a folder, see `loaded_shapes`; None if headers do not say."""
    if name == EMBEDDED:
        return _embedded()
    return loaded_shapes(read_shapes(expanded(name))) or None


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
