"""Shapes of a decoder's weights, from its `config.json` alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.weight_shapes import Shapes

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
