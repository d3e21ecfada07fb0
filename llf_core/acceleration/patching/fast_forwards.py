"""Fast forwards of the parts of a transformer. `del module.forward` restores the module's own."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llf_core.acceleration.kernels.attention import Layout, bounds_of, document_attention, forks_of, signed_sin
from llf_core.acceleration.kernels.linear import Operand, linears, rms_norm, swiglu
from llf_core.acceleration.patching.attention_backend import computing_dtype, group_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    Forward = Callable[..., Any]


RECIPE = "recipe"
"""Attribute of a fast forward that was made: what made it, which another process can make it from."""
SILU = ("SiLU", "SiLUActivation")


def install(module: nn.Module, forward: Forward) -> None:
    """Bind a function as the forward of a module, so that a deep copy of the module uses the copy."""
    module.forward = MethodType(forward, module)


def project(x: Tensor, modules: Sequence[nn.Module]) -> Sequence[Tensor]:
    """Apply linear modules to `x` `[..., in]`, in one call if `operand` can read all of them: `[..., out]` each."""
    found = operands(modules)
    if found is None:
        return [module(x) for module in modules]
    return linears(x.to(computing_dtype(x)), found)


@dataclass(frozen=True)
class RMSNorm:
    """RMS norm, see `rms_norm`; calls with further arguments use the module's own forward.

    Attributes:
        offset: 1 for Gemma's norms, else 0.
        keeps_dtype: whether the output has the dtype of the input, whatever the dtype of the weight.
    """

    eps: float
    offset: float
    keeps_dtype: bool

    def forward(self) -> Forward:
        """The forward to install with `install`."""
        eps, offset, keeps_dtype = self.eps, self.offset, self.keeps_dtype

        def forward(self: Any, x: Tensor, *args: object, **kwargs: object) -> object:
            if args or kwargs:
                return type(self).forward(self, x, *args, **kwargs)
            normed = rms_norm(x, self.weight, eps, offset)
            return normed.to(x.dtype) if keeps_dtype else normed

        return _made(forward, self)


def _made(forward: Forward, recipe: object) -> Forward:
    setattr(forward, RECIPE, recipe)
    return forward


def linear_forward(self: nn.Module, x: Tensor, *args: object, **kwargs: object) -> object:
    """Fast forward `[..., in]` to `[..., out]` of a linear layer with LoRA outside of fast blocks.

    It falls back to the layer's own forward while its adapter is of a kind that `operand` cannot read.
    """
    found = None if args or kwargs else operand(self)
    if found is None:
        return type(self).forward(self, x, *args, **kwargs)
    return linears(x.to(computing_dtype(x)), [found])[0]


@dataclass(frozen=True)
class GatedMLP:
    """Gated MLP: `down(act(gate(x)) * up(x))`; one input may compute gate and up."""

    inputs: tuple[str, ...]
    output: str
    act: str

    def forward(self) -> Forward:
        """The forward to install with `install`."""
        inputs, output, named = self.inputs, self.output, self.act

        def forward(self: nn.Module, x: Tensor) -> Tensor:
            parts = project(x, [getattr(self, name) for name in inputs])
            gate, up = parts if len(parts) > 1 else parts[0].chunk(2, -1)
            act = getattr(self, named)
            inner = swiglu(gate.contiguous(), up.contiguous()) if type(act).__name__ in SILU else act(gate) * up
            return project(inner, (getattr(self, output),))[0]

        return _made(forward, self)


@dataclass(frozen=True)
class RotaryAttention:
    """Attention of flattened batches on a CPU; everything else uses the module's own forward.

    Attributes:
        inputs: names of the projections of q, k and v, or of one that computes all three.
        norms: names of the norms of q and k.
        whole: whether these normalize all heads together.
        rotary: whether q and k are rotated; some layers have no positional encoding.
    """

    inputs: tuple[str, ...]
    output: str
    heads: tuple[int, int]
    dim: int
    norms: tuple[str, str] | None
    whole: bool
    rotary: bool
    scale: float
    window: int | None
    softcap: float | None

    def forward(self) -> Forward:
        """The forward to install with `install`."""
        fast = self

        def forward(self: nn.Module, hidden_states: Tensor, *args: object, **kwargs: Any) -> object:
            bounds, embeddings = kwargs.get("cu_seq_lens_q"), kwargs.get("position_embeddings")
            foreign = kwargs.get("cache") is not None or kwargs.get("past_key_values") is not None
            if args or foreign or bounds is None or embeddings is None or hidden_states.device.type != "cpu":
                return type(self).forward(self, hidden_states, *args, **kwargs)
            q, k, v = fast.project_heads(self, hidden_states)
            forks = forks_of(kwargs.get("forks"))
            layout = Layout(bounds_of(bounds), fast.scale, fast.window, fast.softcap, forks, group_of(self))
            if fast.rotary:
                cos, sin = (x.view(q.shape[0], 1, -1).to(q.dtype) for x in embeddings)
                output = document_attention(q, k, v, layout, cos, signed_sin(sin))
            else:
                output = document_attention(q, k, v, layout)
            return project(output.reshape(*hidden_states.shape[:-1], -1), (getattr(self, fast.output),))[0], None

        return _made(forward, self)

    def project_heads(self, module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project hidden states `[1, tokens, hidden]`, and normalize q and k if the module does; without rotation.

        Returns:
            q `[tokens, query_heads, dim]`, k and v `[tokens, key_heads, dim]`, all in autocast's dtype, or in that of v
            without it.
        """
        parts = project(x, [getattr(module, name) for name in self.inputs])
        if len(parts) == 1:
            queries, keys = (count * self.dim for count in self.heads)
            parts = torch.split(parts[0], [queries, keys, keys], -1)
        q, k, v = parts
        norms = None if self.norms is None else [getattr(module, name) for name in self.norms]
        if norms and self.whole:
            q, k = norms[0](q), norms[1](k)
        q, k, v = (part.reshape(x.shape[:-1].numel(), -1, self.dim) for part in (q, k, v))
        if norms and not self.whole:
            q, k = norms[0](q), norms[1](k)
        # Under autocast a norm gives float32, and so does AdaLoRA beside weights in 8 bits.
        dtype = computing_dtype(v)
        return q.to(dtype), k.to(dtype), v.to(dtype)


# Classes are compared by name, since a model without adapters does not need the libraries imported.
ADAPTED = {("peft.tuners.lora.layer", "Linear"), ("peft.tuners.lora.bnb", "Linear4bit")}
CONV1D = ("transformers.pytorch_utils", "Conv1D")
FOUR_BITS = ("bitsandbytes.nn.modules", "Linear4bit")


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a LoRA layer of PEFT over a base that `operand` can read."""
    return _name(module) in ADAPTED and _is_known(module.get_base_layer())  # type: ignore[operator]


def operand(module: nn.Module) -> Operand | None:  # noqa: PLR0911 - one return per reason
    """Read weight, bias and active adapter of a frozen linear layer, plain, with LoRA or 4-bit.

    Called in every forward, since adapters are switched on and off. None if the fast product would differ from the
    module: its weight or bias is trained, its class is unknown, it is quantized otherwise, repacked for a CPU, sharded
    or has hooks, or its adapter has dropout or a bias, is a LoRA variant (DoRA), is not the only active one, or is
    merged while adapters are disabled.
    """
    adapter, scale, base = None, 1.0, module
    if _name(module) in ADAPTED:
        base = module.base_layer  # type: ignore[assignment]
        found = _adapter(module)
        if found is None:
            return None
        adapter, scale = found
    if not _is_known(base) or any(part._forward_hooks or part._forward_pre_hooks for part in (base, module)):
        return None
    weight: Any = base.weight
    bias: Any = getattr(base, "bias", None)
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        return None
    if _name(base) == FOUR_BITS:
        state = getattr(weight, "quant_state", None) or getattr(base, "quant_state", None)  # a gathered shard has none
        # bitsandbytes has repacked the weight for its inference kernel.
        if state is None or getattr(state, "packing_format_for_cpu", False):
            return None
        return Operand(weight.data, bias, state, adapter=adapter, scale=scale)
    if type(weight) not in (nn.Parameter, torch.Tensor):  # quantized or sharded
        return None
    return Operand(weight, bias, transposed=_name(base) == CONV1D, adapter=adapter, scale=scale)


def _name(module: nn.Module) -> tuple[str, str]:
    kind = type(module)
    return kind.__module__, kind.__qualname__


def _is_known(base: nn.Module) -> bool:
    return type(base) is nn.Linear or _name(base) in (CONV1D, FOUR_BITS)


def _adapter(module: LoraLayer) -> tuple[tuple[torch.Tensor, torch.Tensor] | None, float] | None:
    """The active plain adapter and its scale; `(None, 1)` if none is active, None for any other adapter."""
    if module.merged:
        return None if module.disable_adapters else (None, 1.0)
    active = [name for name in module.active_adapters if name in module.lora_A]
    if module.disable_adapters or not active:
        return None, 1.0
    name = active[0]
    dropout = module.lora_dropout[name]
    dropped = not isinstance(dropout, nn.Identity) and module.training and dropout.p > 0
    if len(active) > 1 or module.lora_variant or dropped or module.lora_bias.get(name):
        return None
    pair: tuple[nn.Linear, nn.Linear] = (module.lora_A[name], module.lora_B[name])
    if any(type(part) is not nn.Linear or part._forward_hooks or part._forward_pre_hooks for part in pair):
        return None
    return (pair[0].weight, pair[1].weight), module.scaling[name]


def operands(modules: Iterable[nn.Module]) -> list[Operand] | None:
    """Read several modules with `operand`; None if one of them cannot be read."""
    found = []
    for module in modules:
        one = operand(module)
        if one is None:
            return None
        found.append(one)
    return found
