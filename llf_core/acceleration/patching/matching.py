"""Finds the fast forward that matches a module by trying candidates on a small copy of it, with random weights."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llf_core.acceleration.patching.fast_forwards import GatedMLP, RMSNorm, RotaryAttention

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterator, Mapping

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


WIDTH = 8  # of the narrow input
SMALL = 100_000  # maximum number of parameters of a part that is copied at full size
CLOSE = 1e-5  # relative distance (of norms) of two float32 results of one formula
LAYER_NUMBER_NAMES = ("layer_id", "layer_index")  # in the names of attributes that hold the number of a layer


def random_normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal random float32 values of the given shape, independent of the global generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def is_close(one: Tensor, other: Tensor) -> bool:
    """Whether two results, of any shape, are equal up to rounding.

    They have one shape and dtype, and the norm of their difference is at most `CLOSE` of that of `other`.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool((one - other).norm() <= CLOSE * other.norm())


def is_linear(module: object) -> bool:
    """Whether a module is a linear layer of any class, quantized or not, or an adapter around one."""
    base = getattr(module, "base_layer", module)
    return isinstance(module, nn.Module) and hasattr(base, "in_features") and hasattr(base, "out_features")


def has_dropout(module: nn.Module) -> bool:
    """Whether a module or one of its direct children applies dropout in training."""
    named = (value for name, value in vars(module).items() if "drop" in name and isinstance(value, float))
    parts = (child.p for child in module.children() if isinstance(child, nn.Dropout))
    return any(share > 0 for share in (*named, *parts))


def probe_module(module: nn.Module, inputs: Collection[str], outputs: Collection[str]) -> nn.Module | None:
    """Make a small copy of a module, with gradients disabled, since the copy's weights are written in place.

    None if the module has parts that cannot be made small, or parameters, buffers or a forward of its own.
    """
    if module._parameters or module._buffers or "forward" in vars(module):
        return None
    small = copy.copy(module)
    children: dict[str, nn.Module | None] = dict(module._modules)
    for seed, (name, child) in enumerate(children.items()):
        if name in inputs:
            children[name] = _linear(child, WIDTH, None, seed)
        elif name in outputs:
            children[name] = _linear(child, None, WIDTH, seed)
        elif child is not None:
            if sum(parameter.numel() for parameter in child.parameters()) > SMALL:
                return None
            children[name] = plain_copy(child, seed)
    vars(small)["_modules"] = children
    return small.train()


def plain_copy(module: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a module to float32 on the CPU, with the forward of its class and frozen, standard normal parameters.

    Buffers keep their values. Parameters of one shape get different values.
    """
    whole = copy.deepcopy(module)
    for part in whole.modules():
        vars(part).pop("forward", None)
    whole = whole.to("cpu", torch.float32)
    generator = torch.Generator().manual_seed(seed + 100)
    for parameter in whole.parameters():
        parameter.requires_grad = False
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return whole


def _linear(module: Any, wide: int | None, high: int | None, seed: int) -> nn.Linear:
    base = getattr(module, "base_layer", module)
    wide, high = wide or base.in_features, high or base.out_features
    linear = nn.Linear(wide, high, bias=getattr(base, "bias", None) is not None)
    linear.weight.copy_(random_normal(high, wide, seed=seed) * wide**-0.5)
    if linear.bias is not None:
        linear.bias.copy_(random_normal(high, seed=seed + 50))
    return linear.requires_grad_(requires_grad=False)


def formula_key(module: nn.Module, numbered: Collection[type] = ()) -> Hashable:
    """Key that is equal for modules of one formula, of which one is tested instead of all layers.

    It has the class, plain attributes, type of the layer in the config, shapes of own parameters, sizes of linear
    layers, and keys of the other submodules.

    Args:
        numbered: classes that depend on the number of their layer, see `depends_on_layer_number`; others ignore it.
    """
    numbers = () if type(module) in numbered else layer_number_attributes(module)
    facts = tuple(
        (name, value)
        for name, value in sorted(vars(module).items())
        if isinstance(value, int | float | str | None) and name not in numbers
    )
    config, number = getattr(module, "config", None), getattr(module, "layer_idx", None)
    layers = getattr(config, "layer_types", None)
    layer_type = layers[number] if layers and isinstance(number, int) and number < len(layers) else None
    own = [(name, one) for name, one in module._parameters.items() if one is not None]
    shapes = tuple((name, tuple(one.shape)) for name, one in own)
    parts = tuple(
        (name, formula_key(child, numbered)) for name, child in module.named_children() if not is_linear(child)
    )
    linears = tuple((name, *_size(child)) for name, child in module.named_children() if is_linear(child))
    return type(module), facts, layer_type, shapes, parts, linears


def layer_number_attributes(module: nn.Module) -> list[str]:
    """Integer attributes of a module that hold the number of a layer, by `LAYER_NUMBER_NAMES`."""
    found = [(name, value) for name, value in vars(module).items() if any(map(name.count, LAYER_NUMBER_NAMES))]
    return [name for name, value in found if isinstance(value, int) and not isinstance(value, bool)]


def depends_on_layer_number(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    """Whether a module computes something by the number of its layer, so that its layers are tested one by one.

    Its forward is run with and without the number: one that only finds its cache by it, and is given none, gives the
    same output.
    """
    without = copy.copy(module)
    for name in layer_number_attributes(module):
        del vars(without)[name]
    forward = type(module).forward
    try:
        return not _equal(forward(without, *args, **kwargs), forward(module, *args, **kwargs))
    except Exception:  # noqa: BLE001 - whatever a forward raises that reads an attribute it does not have
        return True


def _equal(one: object, other: object) -> bool:
    """Whether all tensors of two results are equal bit by bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other)


def _size(module: Any) -> tuple[int, int, bool]:
    base = getattr(module, "base_layer", module)
    return base.in_features, base.out_features, getattr(base, "bias", None) is not None
