"""Faster forwards for the parts of a transformer, each beside the module's own, which it falls back on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llf_core.fast.attention import Layout, bounds_of, document_attention, signed_sin
from llf_core.fast.linear import linears
from llf_core.fast.mlp import swiglu
from llf_core.fast.norm import rms_norm
from llf_core.fast.operands import operand, operands

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Forward = Callable[..., Any]

SILU = ("SiLU", "SiLUActivation")
MIXED_DEVICES = frozenset({"meta"})


def computing_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a product with `x` is computed in: autocast's where it is on."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def project(x: Tensor, modules: Sequence[nn.Module]) -> Sequence[Tensor]:
    """What each of the modules makes of `x`; together where their weights are frozen."""
    found = operands(modules)
    if found is None:
        return [module(x) for module in modules]
    return linears(x.to(computing_dtype(x)), found)


def norm_forward(module: Any, plain: Forward, eps: float, offset: float) -> Forward:
    """For RMS norms."""

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return plain(x, *args, **kwargs)
        return rms_norm(x, module.weight, eps, offset)

    return forward


def mlp_forward(module: Any) -> Forward:
    """For gated MLPs: `gate_proj`, `up_proj`, `down_proj`, or the first two in one `gate_up_proj`."""
    act = getattr(module, "act_fn", None) or module.activation_fn
    silu = type(act).__name__ in SILU
    one = hasattr(module, "gate_up_proj")

    def forward(x: Tensor) -> Tensor:
        if one:
            gate, up = project(x, (module.gate_up_proj,))[0].chunk(2, -1)
        else:
            gate, up = project(x, (module.gate_proj, module.up_proj))
        inner = swiglu(gate.contiguous(), up.contiguous()) if silu else act(gate) * up
        return project(inner, (module.down_proj,))[0]

    return forward


def linear_forward(module: nn.Module, plain: Forward) -> Forward:
    """For a linear layer with LoRA that no block above takes care of."""

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = None if args or kwargs else operand(module)
        if found is None:
            return plain(x, *args, **kwargs)
        return linears(x.to(computing_dtype(x)), [found])[0]

    return forward


def attention_forward(module: Any, plain: Forward, scale: float, window: int | None, softcap: float | None) -> Forward:
    """For attention with rotary embeddings, in flattened batches on a CPU; otherwise the module's own.

    Args:
        module: has `q_proj`, `k_proj`, `v_proj`, `o_proj`, `head_dim`, perhaps `q_norm` and `k_norm` of a head.
        plain: its own forward.
        scale: of the scores.
        window: see `Layout`.
        softcap: see `Layout`.
    """

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        bounds, positions = kwargs.get("cu_seq_lens_q"), kwargs.get("position_embeddings")
        cached = kwargs.get("cache") is not None or kwargs.get("past_key_values") is not None
        if args or bounds is None or positions is None or cached or hidden_states.device.type != "cpu":
            return plain(hidden_states, *args, **kwargs)
        q, k, v = project(hidden_states, (module.q_proj, module.k_proj, module.v_proj))
        tokens = q.shape[:-1].numel()
        q, k, v = (x.view(tokens, -1, module.head_dim) for x in (q, k, v))
        if hasattr(module, "q_norm"):
            q, k = module.q_norm(q), module.k_norm(k)
        cos, sin = (x.view(tokens, 1, -1).to(q.dtype) for x in positions)
        output = document_attention(q, k, v, Layout(bounds_of(bounds), scale, window, softcap), cos, signed_sin(sin))
        return project(output.view(*hidden_states.shape[:-1], -1), (module.o_proj,))[0], None

    return forward
