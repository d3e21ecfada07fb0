"""Finds the fast forward that matches a module by trying candidates on a small copy of it."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from llf_core.acceleration.patching.fast_forwards import GatedMLP, RMSNorm, RotaryAttention
from llf_core.acceleration.patching.probe_module import (
    WIDTH,
    has_dropout,
    is_close,
    is_linear,
    plain_copy,
    probe_module,
    random_normal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llf_core.acceleration.patching.attention_backend import AttentionCall
    from llf_core.acceleration.patching.fast_forwards import Forward

GATES = (("gate_proj", "up_proj"), ("gate_up_proj",))
QKV = (("q_proj", "k_proj", "v_proj"), ("qkv_proj",))
BACK = ("o_proj", "dense", "out_proj")
NORMS = (("q_norm", "k_norm"), ("q_layernorm", "k_layernorm"))
ACTIVATIONS = ("act_fn", "activation_fn")
# A module may raise anything when it is tested; it is then left unchanged.
TEST_ERRORS = Exception


def match_norm(module: nn.Module) -> Forward | None:
    """Find the fast forward of an RMS norm: `weight * x` or, as in Gemma, `(1 + weight) * x`; None if neither fits.

    Any module with a one-dimensional weight and an epsilon is copied and called.
    """
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = module._parameters.get("weight")
    if not isinstance(eps, float) or weight is None or weight.ndim != 1 or list(module.children()):
        return None
    small = plain_copy(module)
    x = random_normal(2, 3, weight.shape[0])
    for offset in (0.0, 1.0):
        for keeps_dtype in (False, True):
            fast = RMSNorm(eps, offset, keeps_dtype).forward()
            tried = (x * 3, x * math.sqrt(eps))
            if _agrees(small, partial(fast, small), tried) and _same_dtype(small, partial(fast, small), x.bfloat16()):
                return fast
    return None


def match_mlp(module: nn.Module) -> Forward | None:
    """Find the fast forward of a gated MLP, by the names of its layers and a test; None if none fits.

    `down(act(gate(x)) * up(x))`: arXiv 2002.05202, section 2. Gradients must be disabled, see `probe_module`.
    """
    for inputs in GATES:
        names = (*inputs, "down_proj")
        act = next((name for name in ACTIVATIONS if callable(getattr(module, name, None))), None)
        if act is None or not all(is_linear(getattr(module, name, None)) for name in names) or has_dropout(module):
            continue
        small = probe_module(module, inputs, ("down_proj",))
        fast = GatedMLP(inputs, "down_proj", act).forward()
        if small is not None and _agrees(small, partial(fast, small), (random_normal(1, 3, WIDTH),)):
            return fast
    return None


def match_attention(module: nn.Module, called: Mapping[str, object]) -> Forward | None:
    """Find the fast forward of an attention with rotary embeddings, by the names of its layers and a test.

    Variants of norms, scale, window and rotation are tried on a small copy; None if none gives the module's own result.
    Gradients must be disabled, see `probe_module`.

    Args:
        called: keyword arguments that its model passes to it, including `position_embeddings`: cosines and sines, `[1,
            seq, rotary_dim]` each, with `seq` above 2.
    """
    found = next((names for names in QKV if all(is_linear(getattr(module, name, None)) for name in names)), None)
    output = next((name for name in BACK if is_linear(getattr(module, name, None))), None)
    dim = getattr(module, "head_dim", None)
    embeddings = called.get("position_embeddings")
    if found is None or output is None or not isinstance(dim, int) or not isinstance(embeddings, tuple):
        return None
    small = None if has_dropout(module) else probe_module(module, found, (output,))
    heads = _heads(module, found, dim)
    if small is None or heads is None:
        return None
    recorded: list[AttentionCall] = []
    tokens = embeddings[0].shape[-2]
    kwargs = {name: value for name, value in called.items() if name != "hidden_states"} | {
        "position_embeddings": tuple(part.to("cpu", torch.float32) for part in embeddings),
        "attention_mask": torch.empty(1, 1, 0, 0),
        "cu_seq_lens_q": torch.tensor([0, tokens - 2, tokens], dtype=torch.int32),
        "record": recorded,
    }
    x = random_normal(1, tokens, WIDTH)
    try:
        result = small(x, **kwargs)
    except TEST_ERRORS:
        return None
    if not isinstance(result, tuple) or len(result) != 2 or result[1] is not None or len(recorded) != 1:  # noqa: PLR2004
        return None
    one = recorded[0]
    for norms, whole, rotary in _variants(module):
        recipe = RotaryAttention(
            found, output, heads, dim, norms, whole, rotary, one.scale, one.window, one.softcap
        ).forward()
        if _agrees(lambda _: result[0], lambda x, recipe=recipe: recipe(small, x, **kwargs)[0], (x,)):
            return recipe
    return None


def _heads(module: nn.Module, inputs: tuple[str, ...], dim: int) -> tuple[int, int] | None:
    """Numbers of query heads and of key heads."""
    sizes = [getattr(module, name).out_features for name in inputs]
    if len(sizes) > 1:
        return sizes[0] // dim, sizes[1] // dim
    queries, keys = (getattr(module.config, name, 0) for name in ("num_attention_heads", "num_key_value_heads"))
    return (queries, keys) if (queries + 2 * keys) * dim == sizes[0] else None


def _variants(module: nn.Module) -> Iterator[tuple[tuple[str, str] | None, bool, bool]]:
    """Candidates: norms, whether they normalize all heads together, and whether there is a rotary embedding."""
    named = [pair for pair in NORMS if all(isinstance(getattr(module, name, None), nn.Module) for name in pair)]
    for rotary in (True, False):
        for pair in named:
            yield pair, False, rotary
            yield pair, True, rotary
        yield None, False, rotary


def _agrees(plain: Callable[..., Tensor], fast: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> bool:
    """Whether both give the same result for each input and raise no exception."""
    try:
        pairs = [(fast(x), plain(x)) for x in inputs]
        return all(
            isinstance(one, Tensor) and isinstance(other, Tensor) and is_close(one, other) for one, other in pairs
        )
    except TEST_ERRORS:
        return False


def _same_dtype(plain: Callable[..., Tensor], fast: Callable[..., Tensor], x: Tensor) -> bool:
    """Whether both give the same dtype for a half-precision input with a float32 weight."""
    return bool(fast(x).dtype == plain(x).dtype)
