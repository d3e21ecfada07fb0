"""Names and shapes of a model's weights, from its files' headers or its `config.json` alone."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.model import EMBEDDED
from llf_core.config.paths import expanded
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

Shapes = dict[str, tuple[int, ...]]

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
"""The index of a weight's layer in its name."""

MATRIX = 2
"""Dimensions of the weight of a linear layer."""

LEFT_OUT = frozenset({"dt_proj", "gate", "router"})
"""Modules with a matrix that `all` leaves out: routers of experts, and Mamba's, whose weight is read directly."""


def count(weights: Mapping[str, tuple[int, ...]]) -> int:
    """Number of parameters of weights, from their shapes by name."""
    return sum(math.prod(shape) for shape in weights.values())


def targeted(
    weights: Mapping[str, tuple[int, ...]], requested: Collection[str], *, experts: bool = True
) -> dict[str, tuple[int, ...]]:
    """Select the linear layers that an adapter is put on, from the shape of each weight by its name.

    Args:
        requested: names of modules, or ends of their paths such as `mlp.up_proj`; with `all` among them, every linear
            layer inside numbered layers (`LAYER`) but `LEFT_OUT`.
        experts: whether the adapter reaches experts, which transformers keeps as parameters of three axes.

    Returns:
        Shape `(out, in)` of each weight, by its name; so is that of a `Conv1D`, as of GPT-2, whose file has `[in, out]`
        and a bias that tells.
    """
    found = {}
    ends = _ends(requested, ".weight")
    for name, shape in weights.items():
        module, inside, expert = _place(name)
        named = module in requested or f".{name}".endswith(ends)
        wanted = name.endswith(".weight") and (inside if "all" in requested else named)
        if wanted and len(shape) == MATRIX and (experts or not expert):
            bias = weights.get(f"{name.removesuffix('weight')}bias", shape[:1])
            found[name] = shape[::-1] if bias == shape[1:] else shape
    return found


def _ends(requested: Collection[str], suffix: str = "") -> tuple[str, ...]:
    """The ends of weights' names that the requested paths mean; names of one part are compared as they are."""
    return tuple(f".{one}{suffix}" for one in requested if "." in one)


@functools.lru_cache(maxsize=1 << 17)
def _place(name: str) -> tuple[str, bool, bool]:
    """Name of a weight's module, whether `all` reaches it by its name, and whether it is of experts; cached."""
    module = name.removesuffix(".weight").rsplit(".", 1)[-1]
    return module, LAYER.search(name) is not None and module not in LEFT_OUT, "experts" in name.split(".")


def expert_weights(
    weights: Mapping[str, tuple[int, ...]], requested: Collection[str]
) -> dict[str, tuple[int, int, int]]:
    """Select the parameters that hold all experts of a layer and get an adapter; each expert has matrices of its own.

    Args:
        weights: shape of each weight of a model, by its name.
        requested: names of parameters, or ends of their paths; with `all` among them, every such parameter.

    Returns:
        Shape `(experts, out, in)` of each parameter, by its name.
    """
    found = {}
    for name, shape in weights.items():
        if len(shape) != MATRIX + 1:
            continue
        *path, last = name.split(".")
        if "experts" in path and ("all" in requested or last in requested or f".{name}".endswith(_ends(requested))):
            number, out, inputs = shape
            found[name] = (number, out, inputs)
    return found


_EXPERT = re.compile(r"^(?P<path>.+\.experts)\.(?P<number>\d+)\.(?P<name>\w+)\.weight$")
_TOGETHER = re.compile(r"^(?P<path>.+)\.(?P<name>input_linear|output_linear)\.weight$")
_PACKED = re.compile(r"^(?P<path>.+)_(?P<kind>blocks|scales)$")

_PARAMETERS = {
    "gate_up_proj": ("gate_proj", "up_proj", "w1", "w3", "fc1", "fc3", "input_linear"),
    "down_proj": ("down_proj", "w2", "fc2", "output_linear"),
}
"""The two parameters of all experts of a layer, and the names of the matrices that they join."""
_OF = {name: parameter for parameter, names in _PARAMETERS.items() for name in names}
_SCALE = ".weight_scale_inv"
_ROUTER = re.compile(r"\.router\.layer\.weight$")
_DIMENSIONS = {"blocks": 4, "scales": 3}

_VALUES = 2
"""Values of 4 bits in a byte."""


def loaded_shapes(stored: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Compute the shapes that a model has once transformers has loaded its files, from the stored shapes by name.

    transformers 5 joins the experts of a layer to two parameters of three axes, and an adapter has matrices for these:
    gate and up together have one B with a row for each of their outputs, and one A. MXFP4 weights (gpt-oss) and FP8
    weights are unpacked while they are loaded.

    Returns:
        Shapes by name: experts that are stored one by one or as `input_linear` and `output_linear` are
        `PATH.experts.gate_up_proj` `[experts, out, in]` and `PATH.experts.down_proj`; a router `router.layer` is
        `router`; MXFP4's `NAME_blocks` `[experts, out, groups, bytes]` are `NAME` `[experts, in, out]`; scales are left
        out. Source: `transformers.conversion_mapping` (Mixtral, Qwen2-MoE, GraniteMoe),
        `transformers.integrations.mxfp4`.
    """
    found: Shapes = {}
    experts: dict[tuple[str, str], dict[str, list[tuple[int, ...]]]] = defaultdict(lambda: defaultdict(list))
    for name, shape in stored.items():
        one = _EXPERT.match(name)
        if one and one["name"] in _OF and len(shape) == MATRIX:
            experts[one["path"], _OF[one["name"]]][one["name"]].append(shape)
        elif (all_ := _TOGETHER.match(name)) and len(shape) == MATRIX + 1:
            path = all_["path"]
            path = path if path.endswith(".experts") else f"{path}.experts"
            found[f"{path}.{_OF[all_['name']]}"] = shape
        elif (packed := _PACKED.match(name)) and len(shape) == _DIMENSIONS[packed["kind"]]:
            if packed["kind"] == "blocks":
                number, out, groups, size = shape
                found[packed["path"]] = (number, groups * size * _VALUES, out)
        elif not name.endswith(_SCALE):
            found[_ROUTER.sub(".router.weight", name)] = shape
    for (path, parameter), matrices in experts.items():
        first, *others = matrices.values()
        out = sum(shapes[0][0] for shapes in (first, *others))
        found[f"{path}.{parameter}"] = (len(first), out, first[0][1])
    return found


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


LARGEST: Mapping[str, int] = {
    "num_hidden_layers": 10_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "moe_intermediate_size": 10_000_000,
    "shared_expert_intermediate_size": 10_000_000,
    "num_attention_heads": 100_000,
    "num_key_value_heads": 100_000,
    "head_dim": 100_000,
    "vocab_size": 100_000_000,
    "num_experts": 100_000,
    "num_local_experts": 100_000,
    "n_routed_experts": 100_000,
    "n_shared_experts": 100_000,
    "q_lora_rank": 1_000_000,
    "kv_lora_rank": 1_000_000,
    "qk_nope_head_dim": 100_000,
    "qk_rope_head_dim": 100_000,
    "v_head_dim": 100_000,
}
"""Largest values of the sizes, far beyond any published model; more is a broken file."""

MOST_PARAMETERS = 10**15
"""A thousand times the largest published model; more is a broken file."""


class ModelSizeError(UserError, ValueError):
    """A model's `config.json` has a size that no model has."""

    exit_code = BAD_CONFIG


@dataclass(frozen=True)
class Layout:
    """How a model type of transformers names and shapes the weights of its layers.

    Attributes:
        attention_bias: whether projections have a bias: of q, k and v always (`qkv`), of none (`no`), or of q, k, v and
            o where the key `attention_bias` is true (`key`), or is not false (`unless`).
        latent: latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
        sinks: whether each head has a sink, a learned logit.
        mlp_bias: whether the key `mlp_bias` gives the MLP's projections a bias.
        fused: whether q, k and v are one projection.
        fused_mlp: whether gate and up are one projection.
        head_norms: norms of queries and keys: of each head (`head`), of all heads (`all`), or none.
        head_dim: width of a head if the file has none; None for `hidden_size / num_attention_heads`.
        tied: whether the output head is the embedding if the file does not say so.
        mlp: name of a layer's MLP or experts.
        experts: the key of the number of experts; None for a dense model.
        inputs_first: whether the parameters of all experts are `[experts, in, out]`, and they and the router have
            biases.
        shared: experts that every token passes: one with a gate of its own (`gated`), as many as `n_shared_experts`
            (`summed`), or none.
    """

    attention_bias: str = "no"
    latent: bool = False
    sinks: bool = False
    mlp_bias: bool = False
    fused: bool = False
    fused_mlp: bool = False
    head_norms: str = ""
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    head_dim: int | None = None
    tied: bool = False
    mlp: str = "mlp"
    router: str = "gate"
    experts: str | None = None
    expert_size: str = "intermediate_size"
    inputs_first: bool = False
    shared: str = ""


_FOUR = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")

LAYOUTS: Mapping[str, Layout] = {
    "llama": Layout(attention_bias="key", mlp_bias=True),
    "mistral": Layout(),
    "mixtral": Layout(experts="num_local_experts"),
    "qwen2": Layout(attention_bias="qkv"),
    "qwen3": Layout(attention_bias="key", head_norms="head", head_dim=128),
    "qwen2_moe": Layout(
        attention_bias="qkv", experts="num_experts", expert_size="moe_intermediate_size", shared="gated"
    ),
    "qwen3_moe": Layout(
        attention_bias="key", head_norms="head", experts="num_experts", expert_size="moe_intermediate_size"
    ),
    "gemma": Layout(attention_bias="key", head_dim=256, tied=True),
    "gemma2": Layout(attention_bias="key", norms=_FOUR, head_dim=256, tied=True),
    "gemma3_text": Layout(attention_bias="key", head_norms="head", norms=_FOUR, head_dim=256, tied=True),
    "phi3": Layout(fused=True, fused_mlp=True),
    "granite": Layout(attention_bias="key", mlp_bias=True),
    "smollm3": Layout(attention_bias="key", mlp_bias=True, tied=True),
    "olmo2": Layout(
        attention_bias="key", head_norms="all", norms=("post_attention_layernorm", "post_feedforward_layernorm")
    ),
    "olmoe": Layout(attention_bias="key", head_norms="all", experts="num_experts"),
    "granitemoe": Layout(
        attention_bias="key", mlp="block_sparse_moe", router="router", experts="num_local_experts"
    ),
    "gpt_oss": Layout(
        attention_bias="unless", sinks=True, head_dim=64, router="router", experts="num_local_experts",
        inputs_first=True,
    ),
    "deepseek_v3": Layout(
        attention_bias="key", latent=True, experts="n_routed_experts", expert_size="moe_intermediate_size",
        shared="summed",
    ),
}  # fmt: skip
"""Layout of each model type; tests compare them with transformers' own models."""


def shapes_from_config(settings: Mapping[str, object]) -> Shapes | None:
    """Compute the shape of every weight of a decoder from its `config.json`, named and shaped as in transformers.

    A head that is tied to the embedding is left out; of a multimodal model, the language model is counted.

    Returns:
        Shapes by name; None for a model type that is not in `LAYOUTS`, or if a size is missing.
    """
    text = settings.get("text_config")
    settings = text if isinstance(text, dict) else settings
    layout = LAYOUTS.get(str(settings.get("model_type")))
    if layout is None:
        return None
    hidden, inner, depth, heads, vocabulary = (
        size_of(settings, key)
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    )
    if hidden is None or depth is None or heads is None or vocabulary is None:
        return None
    attention = (_latent_attention if layout.latent else _attention)(layout, settings, hidden, heads)
    if attention is None:
        return None
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(depth):
        sparse = layout.experts is not None and _has_experts(settings, layer)
        mlp = _experts(layout, settings, hidden) if sparse else _mlp(layout, settings, layout.mlp, hidden, inner)
        if mlp is None:
            return None
        for part in (attention, mlp):
            shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in part.items()}
    shapes["model.norm.weight"] = (hidden,)
    tied = settings.get("tie_word_embeddings")
    if not (layout.tied if tied is None else tied):
        shapes["lm_head.weight"] = (vocabulary, hidden)
    return shapes


def check_sizes(settings: Mapping[str, object]) -> None:
    """Check the sizes in the `config.json` of a model of any type, and of its encoders.

    A type that is not in `LAYOUTS` may write a size as a list, one for each layer, and leave out experts with 0.
    """
    shapes_from_config(settings)
    parts = (settings, *(settings.get(key) for key in ("text_config", "vision_config", "audio_config")))
    for part in (one for one in parts if isinstance(one, dict)):
        for key in (one for one in LARGEST if one in part):
            value = part[key]
            whole = isinstance(value, float) and value.is_integer() and 0 < value <= LARGEST[key]
            if isinstance(value, str | float | int) and value != 0 and not whole:
                size_of(part, key)


def size_of(settings: Mapping[str, object], key: str) -> int | None:
    """Read a size, one of `LARGEST`, from a `config.json`; None if it is missing.

    Raises:
        ModelSizeError: it is no positive integer, or larger than any model's.
    """
    value = settings.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST[key]:
        shown = str(value) if not isinstance(value, str) else repr(value)
        shown = shown if len(shown) <= 30 else f"{shown[:30]}…"  # noqa: PLR2004 - characters of a sentence
        raise ModelSizeError(
            f"`{key}` in the model's config.json is {shown}. Expected an integer from 1 to {LARGEST[key]:,}.",
            "Download the model's config.json again.",
        )
    return value


def _has_experts(settings: Mapping[str, object], layer: int) -> bool:
    dense, apart = settings.get("mlp_only_layers"), settings.get("decoder_sparse_step")
    first = settings.get("first_k_dense_replace")
    if (isinstance(dense, list) and layer in dense) or (isinstance(first, int) and layer < first):
        return False
    return not (isinstance(apart, int) and apart > 1) or (layer + 1) % apart == 0


def _attention(layout: Layout, settings: Mapping[str, object], hidden: int, heads: int) -> Shapes | None:
    width = size_of(settings, "head_dim") or layout.head_dim or hidden // heads
    queries, keys = heads * width, (size_of(settings, "num_key_value_heads") or heads) * width
    biased = _has_bias(layout, settings)
    inputs = layout.attention_bias == "qkv" or biased
    linear = {"q_proj": (queries, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden)}
    if layout.fused:
        linear = {"qkv_proj": (queries + 2 * keys, hidden)}
    found: Shapes = {}
    for name, shape in linear.items():
        found |= _linear(f"self_attn.{name}", shape, bias=inputs)
    found |= _linear("self_attn.o_proj", (hidden, queries), bias=biased)
    if layout.head_norms:
        own = (width, width) if layout.head_norms == "head" else (queries, keys)
        found |= {f"self_attn.{name}_norm.weight": (size,) for name, size in zip("qk", own, strict=True)}
    if layout.sinks:
        found["self_attn.sinks"] = (heads,)
    return found | {f"{name}.weight": (hidden,) for name in layout.norms}


def _has_bias(layout: Layout, settings: Mapping[str, object]) -> bool:
    if layout.attention_bias not in {"key", "unless"}:
        return False
    told = settings.get("attention_bias")
    return layout.attention_bias == "unless" if told is None else bool(told)


def _latent_attention(layout: Layout, settings: Mapping[str, object], hidden: int, heads: int) -> Shapes | None:
    plain, rotary, values, latent = (
        size_of(settings, key) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
    )
    if plain is None or rotary is None or values is None or latent is None:
        return None
    bias, queries, rank = _has_bias(layout, settings), heads * (plain + rotary), size_of(settings, "q_lora_rank")
    if rank is None:
        found = _linear("self_attn.q_proj", (queries, hidden), bias=False)
    else:
        found = _linear("self_attn.q_a_proj", (rank, hidden), bias=bias)
        found["self_attn.q_a_layernorm.weight"] = (rank,)
        found |= _linear("self_attn.q_b_proj", (queries, rank), bias=False)
    found |= _linear("self_attn.kv_a_proj_with_mqa", (latent + rotary, hidden), bias=bias)
    found["self_attn.kv_a_layernorm.weight"] = (latent,)
    found |= _linear("self_attn.kv_b_proj", (heads * (plain + values), latent), bias=False)
    found |= _linear("self_attn.o_proj", (hidden, heads * values), bias=bias)
    return found | {f"{name}.weight": (hidden,) for name in layout.norms}


def _mlp(layout: Layout, settings: Mapping[str, object], path: str, hidden: int, inner: int | None) -> Shapes | None:
    if inner is None:
        return None
    sides = {"gate_up_proj": 2 * inner} if layout.fused_mlp else {"gate_proj": inner, "up_proj": inner}
    bias = layout.mlp_bias and bool(settings.get("mlp_bias"))
    found: Shapes = {}
    for name, side in sides.items():
        found |= _linear(f"{path}.{name}", (side, hidden), bias=bias)
    return found | _linear(f"{path}.down_proj", (hidden, inner), bias=bias)


def _experts(layout: Layout, settings: Mapping[str, object], hidden: int) -> Shapes | None:
    """Shapes of the router and of all experts, which transformers keeps together."""
    number = size_of(settings, layout.experts or "")
    inner = size_of(settings, layout.expert_size)
    if number is None or inner is None:
        return None
    router, experts = f"{layout.mlp}.{layout.router}", f"{layout.mlp}.experts"
    sides = {"gate_up_proj": (2 * inner, hidden), "down_proj": (hidden, inner)}
    found: Shapes = {f"{router}.weight": (number, hidden)}
    for name, (out, width) in sides.items():
        found[f"{experts}.{name}"] = (number, width, out) if layout.inputs_first else (number, out, width)
    if layout.inputs_first:
        found[f"{router}.bias"] = (number,)
        found |= {f"{experts}.{name}_bias": (number, out) for name, (out, _) in sides.items()}
    if layout.shared:
        shared = _shared_experts(layout, settings, hidden, inner)
        return None if shared is None else found | shared
    return found


def _shared_experts(layout: Layout, settings: Mapping[str, object], hidden: int, inner: int) -> Shapes | None:
    if layout.shared == "gated":
        size = size_of(settings, "shared_expert_intermediate_size")
        gate: Shapes = {f"{layout.mlp}.shared_expert_gate.weight": (1, hidden)}
        found = _mlp(layout, settings, f"{layout.mlp}.shared_expert", hidden, size)
        return None if found is None else found | gate
    number = size_of(settings, "n_shared_experts")
    return None if number is None else _mlp(layout, settings, f"{layout.mlp}.shared_experts", hidden, number * inner)


def _linear(path: str, shape: tuple[int, int], *, bias: bool) -> Shapes:
    return {f"{path}.weight": shape} | ({f"{path}.bias": (shape[0],)} if bias else {})


_LENGTH = struct.Struct("<Q")
_LARGEST_HEADER = 100_000_000


def read_shapes(folder: Path) -> Shapes:
    """Shape of each weight in the safetensors files of a folder, by its name; empty without such files.

    Reads only headers. A file whose header is damaged or too large is skipped, and a weight without a shape.
    """
    found: Shapes = {}
    for file in weight_files(folder):
        entries = {name: _shape(entry) for name, entry in _header(file)[0].items()}
        found |= {name: shape for name, shape in entries.items() if shape is not None}
    return found


def read_dtypes(folder: Path) -> set[str]:
    """Dtypes of the weights in the safetensors files of a folder, such as `BF16`; unreadable headers are skipped."""
    entries = (entry for file in weight_files(folder) for entry in _header(file)[0].values())
    return {str(entry["dtype"]) for entry in entries if isinstance(entry, dict) and "dtype" in entry}


def read_bytes(folder: Path) -> int:
    """Bytes of all weights in the safetensors files of a folder as they are stored; 0 without such files.

    Unreadable headers are skipped, and weights that are not whole in their file, as after an interrupted download.
    """
    total = 0
    for file in weight_files(folder):
        entries, size = _header(file)
        offsets = (entry.get("data_offsets") for entry in entries.values() if isinstance(entry, dict))
        total += sum(one[1] - one[0] for one in offsets if isinstance(one, list) and _is_span(one, size))
    return total


def _is_span(offsets: list[object], size: int) -> bool:
    match offsets:
        case [int(begin), int(end)]:
            return 0 <= begin <= end <= size
    return False


def weight_files(folder: Path) -> list[Path]:
    """Safetensors files of a folder, sorted by name; no pipes, whose reader would wait, and no broken links."""
    return [file for file in sorted(folder.glob("*.safetensors")) if file.is_file()]


def _header(file: Path) -> tuple[dict[str, object], int]:
    """Entries of the weights in one file, by name, empty if its header cannot be read; and the bytes that follow it."""
    with file.open("rb") as stream:
        start = stream.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else _LARGEST_HEADER + 1
        if length > _LARGEST_HEADER:
            return {}, 0
        try:
            header: object = json.loads(stream.read(length))
        except (ValueError, RecursionError):
            return {}, 0
        size = stream.seek(0, os.SEEK_END) - _LENGTH.size - length
    if not isinstance(header, dict):
        return {}, 0
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, size


def _shape(entry: object) -> tuple[int, ...] | None:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
        return None
    return tuple(shape)
