"""Fast forward pass of a few tokens through Llama-like decoder blocks (Llama, Mistral, Qwen 2 and 3, Gemma 1, …)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache as cached
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import DynamicCache, DynamicLayer

from llf_core.generation.weight_products import TILE, JoinedLinear, read_linear
from llf_core.models.mixture_of_depths import routing_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache, CacheLayerMixin

    from llf_core.generation.kv_cache import RowsCache

    Attend = Callable[[CacheLayerMixin, Tensor, Tensor, Tensor], Tensor]
    Multiply = Callable[[JoinedLinear, Tensor], Tensor]

BLOCK_MODULES = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION_MODULES = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP_MODULES = {"gate_proj", "up_proj", "down_proj", "act_fn"}

WIDTH = 16
"""Attention of a step in 16 bits on a CPU reads a multiple of this number of columns; torch then adds up the first
ones in the same order whatever follows, see `attends_alike`."""

QUERY_ROWS = 4
"""The query heads of each key head are padded to a multiple of this number. The buffers of torch's threads are
adjacent; with 3 heads the second thread's is not aligned, which changes the order of a sum."""

TRIED = 16
"""Number of rows of different lengths that `attends_alike` compares."""

# Maximum difference of logits relative to the largest one: rounding is below it, a wrong formula far above. Chosen, not
# measured: 8 (bfloat16) to some 1000 machine epsilons of the dtype.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
NORM_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 4e-2}


class RMSNorm:
    """RMS norm: `x / sqrt(mean(x²) + eps) * weight` over the last dimension (arXiv 1910.07467, eq. 4).

    Args:
        weight: `[width]`, including the offset of Gemma's norms.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.width, self.dtype = len(weight), weight.dtype
        self._weight, self._eps = weight, eps
        # x·w·√n / sqrt(x·x + n·eps): four small operations for a single row, a third faster than F.rms_norm.
        self._scaled = weight * self.width**0.5 if weight.dtype in (torch.float32, torch.float64) else None
        self._sum_eps = self.width * eps
        # The mean of (x, -x) is 0 and its variance mean(x²), so its layer norm is the RMS norm. torch has one kernel
        # for that on a CPU, and ten for F.rms_norm: it takes two thirds of the time.
        self._twice = torch.cat([weight, weight]) if weight.device.type == "cpu" else None

    def __call__(self, x: Tensor) -> Tensor:
        """Normalize the rows of `x` `[..., width]`; the rows of the result may not be contiguous."""
        if x.dim() == 1 and self._scaled is not None:
            return torch.mul(x, self._scaled).mul_(torch.dot(x, x).add_(self._sum_eps).rsqrt_())
        if self._twice is not None:
            both = F.layer_norm(torch.cat([x, -x], -1), (2 * self.width,), self._twice, None, self._eps)
            return both[..., : self.width]
        return F.rms_norm(x, (self.width,), self._weight, self._eps)

    @classmethod
    def read(cls, module: Any) -> RMSNorm | None:
        """Convert a module to a norm; None if it lacks weight or epsilon, or differs on random rows `[2, width]`.

        The comparison recognizes norms of any class, also Gemma's, whose weight lacks 1.
        """
        weight = getattr(module, "weight", None)
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not isinstance(weight, Tensor) or weight.dim() != 1 or not isinstance(eps, float):
            return None
        weight = weight.detach()
        x = torch.randn(2, len(weight), generator=torch.Generator().manual_seed(0)).to(weight.device, weight.dtype)
        try:
            with torch.no_grad():
                expected = module(x)
        except Exception:  # noqa: BLE001 - whatever a norm with other arguments raises, the model's own forward has them
            return None
        if not isinstance(expected, Tensor) or expected.shape != x.shape:
            return None
        for norm in (cls(weight, eps), cls(1.0 + weight, eps)):
            distance = (norm(x).float() - expected.float()).norm()
            if distance <= NORM_TOLERANCE.get(weight.dtype, 0.0) * expected.float().norm():
                return norm
        return None


@dataclass(frozen=True, slots=True)
class Block:
    """The parts of one decoder block; `q_norm` and `k_norm` are None without such norms, `inner` is the MLP's size."""

    input_norm: RMSNorm
    qkv: JoinedLinear
    q_norm: RMSNorm | None
    k_norm: RMSNorm | None
    o: JoinedLinear
    mlp_norm: RMSNorm
    gate_up: JoinedLinear
    act: Callable[[Tensor], Tensor]
    down: JoinedLinear
    inner: int


class RotaryMatrix:
    """Rotates queries and keys of a position by a small matrix, `x @ R`: one product instead of five operations.

    Args:
        rotary: the model's rotary embedding, which computes `cos` and `sin`.
        turn: `[rotated, rotated]`; `x @ turn` is Llama's `rotate_half(x)`.
        head_dim: head size of queries and keys; dimensions beyond the rotated ones are unchanged.
    """

    def __init__(self, rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], turn: Tensor, head_dim: int) -> None:
        self._rotary, self._turn, self._head_dim = rotary, turn, head_dim

    def __call__(self, like: Tensor, positions: Tensor) -> Tensor:
        """Rotation matrices `[batch, head_dim, head_dim]` of positions `[batch]` (int64), in the dtype of `like`.

        Source:
            RoPE, arXiv 2104.09864, equation 15, with Llama's order of the dimensions.
        """
        cos, sin = self._rotary(like, positions[:, None])
        rotated: Tensor = torch.diag_embed(cos[:, 0]) + self._turn.to(sin) * sin
        rest: int = self._head_dim - rotated.shape[-1]
        if rest == 0:
            return rotated
        whole = torch.eye(self._head_dim, dtype=like.dtype, device=like.device).repeat(len(positions), 1, 1)
        whole[:, :-rest, :-rest] = rotated
        return whole

    @classmethod
    def read(cls, rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], head_dim: int) -> RotaryMatrix | None:
        """Convert a rotary embedding like Llama's; None if frequencies are missing, too many or depend on the length.

        Cosines and sines are still computed by the model's own embedding, which keeps its scaling of frequencies.
        """
        frequencies = getattr(rotary, "inv_freq", None)
        if frequencies is None or getattr(rotary, "rope_type", "default") in ("dynamic", "longrope"):
            return None
        size = 2 * len(frequencies)
        if size > head_dim:
            return None
        half = torch.eye(size // 2, device=frequencies.device)
        turn = torch.zeros(size, size, device=frequencies.device)
        turn[size // 2 :, : size // 2] = -half
        turn[: size // 2, size // 2 :] = half
        return cls(rotary, turn, head_dim)


@dataclass(frozen=True, slots=True)
class BlockForward:
    """Computes logits after one token per row, or after a short prompt. Created by `block_forward`.

    It refers to the model's weights; create a new one after weights or adapters have changed.
    """

    embed: nn.Module
    rotation: RotaryMatrix
    blocks: tuple[Block, ...]
    norm: RMSNorm
    head: JoinedLinear
    heads: int
    kv_heads: int
    head_dim: int
    scaling: float

    def __call__(self, tokens: Tensor, cache: RowsCache) -> Tensor:
        """Read one token per row, ids `[rows]`, into the cache; returns logits `[rows, vocabulary]`.

        In 16 bits on a CPU a row gets the logits that it gets alone: products have `TILE` rows, filled up
        (`JoinedLinear.rows`), and attention reads a multiple of `WIDTH` columns. The caller counts the tokens
        (`RowsCache.end`).
        """
        count = len(tokens)
        groups = (-1, self.kv_heads, self.heads // self.kv_heads, self.head_dim)
        exact = tokens.device.type == "cpu" and self.norm.dtype.itemsize == 2  # noqa: PLR2004 - bytes
        cache.begin(WIDTH if exact else 1)
        positions, mask = cache.columns, cache.mask()
        bias = None if mask is None else self._score_mask(mask)[:, None, None]
        by_rows = exact and count > 1 and not attends_alike(groups[1:], self.norm.dtype, cache.width)

        # The query heads of a key head form the sequence axis: each is a position that attends to the whole past.
        def attend(layer: CacheLayerMixin, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = layer.update(key[:count, :, None], value[:count, :, None])
            query = query.view(groups)
            if by_rows:
                mixed = torch.zeros_like(query)
                for row, length in enumerate(cache.lengths):
                    own = slice(0, -(-(length + 1) // WIDTH) * WIDTH)
                    mixed[row] = attend_to_past(
                        query[row : row + 1], keys[row : row + 1, :, own], values[row : row + 1, :, own],
                        None if bias is None else bias[row : row + 1, ..., own], self.scaling,
                    )[0]  # fmt: skip
                return mixed
            mixed = attend_to_past(query[:count], keys, values, bias, self.scaling)
            return mixed if count == len(query) else F.pad(mixed, (0, 0, 0, 0, 0, 0, 0, len(query) - count))

        with torch.inference_mode(), torch.autocast(tokens.device.type, enabled=False):
            if exact:
                filled = (0, -count % TILE)
                tokens, positions = F.pad(tokens, filled), F.pad(positions, filled)
            hidden = self._read(tokens, positions, cache, attend, JoinedLinear.rows)
            return self.head.rows(self.norm(hidden)).view(len(tokens), -1)[:count]

    def read(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Read several tokens of one row (ids and positions `[new]`, int64); the last logits, `[1, vocabulary]`."""
        past, new = int(cache.layers[0].get_seq_length()), len(tokens)
        columns = torch.arange(past + new, device=tokens.device)
        causal = self._score_mask(columns <= columns[past:, None]) if past else None

        def attend(layer: CacheLayerMixin, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = layer.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None])
            mixed = F.scaled_dot_product_attention(
                query.transpose(0, 1)[None], keys, values, attn_mask=causal, is_causal=causal is None,
                scale=self.scaling, enable_gqa=self.heads != self.kv_heads,
            )  # fmt: skip
            return mixed[0].transpose(0, 1)

        with torch.inference_mode(), torch.autocast(tokens.device.type, enabled=False):
            hidden = self._read(tokens, positions, cache, attend, JoinedLinear.__call__)
            logits: Tensor = self.head(self.norm(hidden[-1]))
            return logits[None]

    def _score_mask(self, mask: Tensor) -> Tensor:
        """Added to attention scores: 0 where `mask` is true, else -inf. torch would convert a mask in each layer."""
        scores = torch.zeros(mask.shape, dtype=next(self.embed.parameters()).dtype, device=mask.device)
        return scores.masked_fill_(~mask, -torch.inf)

    def _read(self, tokens: Tensor, positions: Tensor, cache: Cache, attend: Attend, multiply: Multiply) -> Tensor:
        """Hidden states `[tokens, size]` before the final norm; `[size]` of a single token."""
        count, heads, head_dim = len(tokens), self.heads, self.head_dim
        both = heads + self.kv_heads
        hidden: Tensor = self.embed(tokens)
        if count == 1:
            hidden = hidden[0]
        wide = (*hidden.shape[:-1], heads * head_dim)
        rotation = self.rotation(hidden, positions)

        def add(linear: JoinedLinear, x: Tensor) -> None:
            if count == 1:
                linear.add_to(hidden, x)
            else:
                hidden.add_(multiply(linear, x))

        for block, layer in zip(self.blocks, cache.layers, strict=True):
            qkv = multiply(block.qkv, block.input_norm(hidden)).view(count, both + self.kv_heads, head_dim)
            qk = qkv[:, :both]
            if block.q_norm is not None and block.k_norm is not None:
                qk = torch.cat([block.q_norm(qk[:, :heads]), block.k_norm(qk[:, heads:])], dim=1)
            qk = torch.mm(qk[0], rotation[0])[None] if count == 1 else torch.bmm(qk, rotation)
            mixed = attend(layer, qk[:, :heads], qk[:, heads:], qkv[:, both:])
            add(block.o, mixed.reshape(wide))
            gate_up = multiply(block.gate_up, block.mlp_norm(hidden))
            gate, up = gate_up[..., : block.inner], gate_up[..., block.inner :]
            add(block.down, block.act(gate).mul_(up))
        return hidden

    @staticmethod
    def agrees(found: Tensor, expected: Tensor) -> bool:
        """Whether logits `[batch, vocabulary]` are equal up to rounding; the dtype of `expected` selects the tolerance.

        No logit is NaN, and none differs by more than `TOLERANCE` times the largest absolute one (at least 1).
        """
        distance = (found.float() - expected.float()).abs().max()
        return bool(distance <= TOLERANCE[expected.dtype] * expected.float().abs().max().clamp(min=1.0))


def attend_to_past(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float | None = None
) -> Tensor:
    """Attention of one token of each row, in 16 bits on a CPU the same whichever of torch's threads computes it.

    Args:
        query: `[rows, key heads, query heads of each, head size]`.
        keys: `[rows, key heads, columns, head size]`.
        bias: added to the scores, `[rows, 1, 1, columns]`.
    """
    heads = query.shape[2]
    exact = heads > 1 and query.device.type == "cpu" and query.dtype.itemsize == 2  # noqa: PLR2004 - bytes
    if spare := -heads % QUERY_ROWS if exact else 0:
        query = F.pad(query, (0, 0, 0, spare))
    mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=scale)
    return mixed[:, :, :heads]


@cached
def attends_alike(shape: tuple[int, int, int], dtype: torch.dtype, width: int) -> bool:
    """Whether attention to `width` columns on this CPU gives shorter rows the results of their own columns alone.

    torch uses another kernel for some widths (seen from 208 columns on with AVX512).

    Args:
        shape: key heads, query heads per key head, head size.
        width: a multiple of `WIDTH`.
    """
    heads, group, size = shape
    lengths = torch.linspace(WIDTH, width, TRIED).div(WIDTH).round().mul(WIDTH)[:, None, None, None]
    generator = torch.Generator().manual_seed(0)
    # Small queries give all columns about the same weight.
    query = torch.randn(TRIED, heads, group, size, generator=generator).mul_(0.01).to(dtype)
    keys, values = (torch.randn(1, heads, width, size, generator=generator) for _ in range(2))
    values *= torch.exp2(torch.randint(-10, 11, values.shape, generator=generator))
    # The sum of each 16 columns nearly cancels, so that what remains of it shows the order.
    blocks = values.view(1, heads, -1, WIDTH, size)
    blocks[:, :, :, WIDTH // 2 :] = -blocks[:, :, :, : WIDTH // 2]
    keys, values = keys.to(dtype), values.to(dtype)
    bias = torch.zeros(TRIED, 1, 1, width, dtype=dtype).masked_fill_(torch.arange(width) >= lengths, -torch.inf)
    rows = (TRIED, -1, -1, -1)
    found = attend_to_past(query, keys.expand(rows), values.expand(rows), bias)
    for at, length in enumerate(lengths.flatten().int().tolist()):
        row, own = slice(at, at + 1), slice(0, length)
        alone = attend_to_past(query[row], keys[:, :, own], values[:, :, own], bias[row, ..., own])
        if not torch.equal(found[row], alone):
            return False
    return True


def block_forward(model: nn.Module) -> BlockForward | str:
    """Build a fast forward for single tokens, or return a sentence that says why the model has none.

    The parts are recognized by their names and shapes. The caller must check that the logits equal the model's
    (`BlockForward.agrees`) before using it.
    """
    causal = causal_model(model)
    decoder = causal.get_decoder() if hasattr(causal, "get_decoder") else None
    layers, rotary = getattr(decoder, "layers", None), getattr(decoder, "rotary_emb", None)
    if layers is None or rotary is None or len(layers) == 0:
        return f"{type(causal).__name__} has no decoder blocks like Llama's."
    kinds = {parameter.dtype for name, parameter in causal.named_parameters() if "lora_" not in name}
    places = {parameter.device for parameter in causal.parameters()}
    if len(kinds) > 1 or len(places) > 1 or not kinds <= set(TOLERANCE):
        return "Its weights have several dtypes or devices, or are quantized."
    blocks = [_block(layer) for layer in layers]
    head, norm = read_linear(causal.get_output_embeddings()), RMSNorm.read(getattr(decoder, "norm", None))
    rotation = RotaryMatrix.read(rotary, layers[0].self_attn.head_dim) if blocks[0] is not None else None
    if head is None or norm is None or rotation is None or any(block is None for block in blocks):
        return f"{type(causal).__name__} has parts unlike Llama's."
    attention = layers[0].self_attn
    query, key = (read_linear(part) for part in (attention.q_proj, attention.k_proj))
    assert query is not None  # noqa: S101 - _block has read both
    assert key is not None  # noqa: S101 - _block has read both
    return BlockForward(
        embed=causal.get_input_embeddings(),
        rotation=rotation,
        blocks=tuple(block for block in blocks if block is not None),
        norm=norm,
        head=JoinedLinear([head]),
        heads=len(query.weight) // attention.head_dim,
        kv_heads=len(key.weight) // attention.head_dim,
        head_dim=attention.head_dim,
        scaling=attention.scaling,
    )


def _block(layer: Any) -> Block | None:
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    if attention is None or mlp is None or set(dict(layer.named_children())) != BLOCK_MODULES:
        return None
    inside = set(dict(attention.named_children()))
    if inside - {"q_norm", "k_norm"} != ATTENTION_MODULES or set(dict(mlp.named_children())) - {
        "act_fn"
    } != MLP_MODULES - {"act_fn"}:
        return None
    if not hasattr(attention, "scaling") or not hasattr(attention, "head_dim"):
        return None
    parts = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    parts += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    linears = [read_linear(part) for part in parts]
    norms = [RMSNorm.read(layer.input_layernorm), RMSNorm.read(layer.post_attention_layernorm)]
    head_norms = [RMSNorm.read(getattr(attention, name)) if name in inside else None for name in ("q_norm", "k_norm")]
    if any(norm is not None and norm.width != attention.head_dim for norm in head_norms):
        return None
    if (
        None in linears
        or None in norms
        or len(inside) - len(ATTENTION_MODULES) != sum(norm is not None for norm in head_norms)
    ):
        return None
    q, k, v, o, gate, up, down = [linear for linear in linears if linear is not None]
    first, second = [norm for norm in norms if norm is not None]
    return Block(
        input_norm=first,
        qkv=JoinedLinear([q, k, v]),
        q_norm=head_norms[0],
        k_norm=head_norms[1],
        o=JoinedLinear([o]),
        mlp_norm=second,
        gate_up=JoinedLinear([gate, up]),
        act=mlp.act_fn,
        down=JoinedLinear([down]),
        inner=len(gate.weight),
    )


# Keys of a generation config without effect on tokens, or whose meaning is covered by arguments here or by Sampling.
SUPPORTED_SETTINGS = {
    "_from_model_config",
    "bos_token_id",
    "cache_implementation",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "pad_token_id",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "use_cache",
}


def causal_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def unsupported(model: PreTrainedModel | PeftModel) -> str | None:
    """Reason why a model needs `model.generate`; None if the decode loop gives the same completions."""
    causal = causal_model(model)
    name = type(causal).__name__
    if not isinstance(causal, GenerationMixin) or causal.config.is_encoder_decoder:
        return f"{name} is not a decoder-only model of transformers."
    if type(causal).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation:
        return f"{name} has its own `prepare_inputs_for_generation`."
    if other_cache := _other_cache(causal):
        return other_cache
    if getattr(model, "peft_config", None) and getattr(model.active_peft_config, "is_prompt_learning", False):
        return "Its adapter prepends virtual tokens to each prompt."
    configured = _configured(causal.generation_config)
    if configured:
        return f"Its generation config sets {', '.join(configured)}."
    return None


def _other_cache(causal: PreTrainedModel) -> str | None:
    name = type(causal).__name__
    if routing_of(causal) is not None:
        return f"{name} has routed blocks (Mixture-of-Depths), which keep no cache of keys and values."
    kinds = {type(layer) for layer in DynamicCache(config=causal.config).layers} or {DynamicLayer}
    other = sorted(kind.__name__ for kind in kinds if kind is not DynamicLayer)
    return (
        f"The cache of {name} has layers of type {', '.join(other)} (a sliding window or a state)." if other else None
    )


def _configured(config: GenerationConfig) -> list[str]:
    neutral = GenerationConfig().to_dict()
    return sorted(
        key
        for key, value in config.to_dict().items()
        if key not in SUPPORTED_SETTINGS and value is not None and value is not False and value != neutral.get(key)
    )
