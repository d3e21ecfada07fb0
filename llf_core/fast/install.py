"""Makes a loaded model faster in place: looks at its parts, tries each against the model's own, keeps what agrees."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llf_core.fast.blocks import attention_forward, linear_forward, mlp_forward, norm_forward

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 5
# Largest relative distance (of norms) at which two forwards count as the same; a wrong formula is off by far more.
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Accelerated:
    """What `accelerate` did.

    Attributes:
        flattens: whether batches may be flattened: the model keeps documents apart.
        notes: sentences for a log: what is fast, what stays as it was, and why.
    """

    flattens: bool
    notes: tuple[str, ...]


def accelerate(model: nn.Module) -> Accelerated:
    """Replaces forwards of a model's norms, MLPs, attentions and LoRA layers by faster ones that give the same.

    Every part is recognised by its shape and kept only if it gives the numbers of the part that it replaces.

    Args:
        model: a causal language model of transformers, perhaps wrapped by PEFT.
    """
    from llf_core.fast.flatten import can_flatten
    from llf_core.fast.head import install_head

    causal = _inner(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            refused = can_flatten(causal)
            done = _replace_parts(causal, attention=refused is None)
    finally:
        model.train(was_training)
    notes = [f"Fast path: {', '.join(f'{count} {what}' for what, count in sorted(done.items())) or 'no part known'}."]
    if refused:
        notes.append(f"Batches are padded: {refused}")
    plain_head = install_head(model)
    if plain_head:
        notes.append(f"The loss is computed from all logits: {plain_head}")
    return Accelerated(refused is None, tuple(notes))


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _replace_parts(causal: nn.Module, *, attention: bool) -> Counter[str]:
    done: Counter[str] = Counter()
    inside: set[nn.Module] = set()
    rotary = next((part for name, part in causal.named_modules() if name.endswith("rotary_emb")), None)
    if not attention:
        rotary = None
    for module in causal.modules():
        name = type(module).__name__
        if name.endswith("RMSNorm") and _replace_norm(module):
            done["norms"] += 1
        elif hasattr(module, "down_proj") and _replace_mlp(module):
            done["MLPs"] += 1
            inside.update(module.children())
        elif rotary is not None and _replace_attention(module, rotary):
            done["attentions"] += 1
            inside.update(module.children())
    for module in causal.modules():
        if hasattr(module, "lora_A") and _is_lora_linear(module):
            module.forward = linear_forward(module, module.forward)
            if module not in inside:
                done["LoRA layers"] += 1
    return done


def _is_lora_linear(module: Any) -> bool:
    base = getattr(module, "base_layer", None)
    return type(base).__name__ in ("Linear", "Conv1D", "Linear4bit")


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    distance = (one.float() - other.float()).norm() / other.float().norm().clamp(min=1e-12)
    return bool(distance <= CLOSE.get(other.dtype, 0.0))


def _input(module: nn.Module, width: int) -> Tensor:
    weight = next(module.parameters())
    dtype = weight.dtype if weight.dtype.is_floating_point else torch.bfloat16
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, TOKENS, width, generator=generator).to(weight.device, dtype)


def _replace_norm(module: Any) -> bool:
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = getattr(module, "weight", None)
    if eps is None or weight is None or weight.ndim != 1 or weight.is_meta:
        return False
    x = _input(module, weight.shape[0]) * 3
    plain = module.forward
    expected = plain(x)
    for offset in (0.0, 1.0):
        fast = norm_forward(module, plain, eps, offset)
        if _same(fast(x), expected):
            module.forward = fast
            return True
    return False


def _width(module: Any) -> int | None:
    base = getattr(module, "base_layer", module)
    return getattr(base, "in_features", None)


def _replace_mlp(module: Any) -> bool:
    first = getattr(module, "gate_proj", getattr(module, "gate_up_proj", None))
    act = getattr(module, "act_fn", getattr(module, "activation_fn", None))
    if not isinstance(first, nn.Module) or act is None or not (width := _width(first)):
        return False
    if not isinstance(module.down_proj, nn.Module) or first.weight.is_meta:
        return False
    x = _input(module, width)
    fast = mlp_forward(module)
    if not _same(fast(x), module.forward(x)):
        return False
    module.forward = fast
    return True


def _replace_attention(module: Any, rotary: nn.Module) -> bool:
    parts = (*PROJECTIONS, "head_dim")
    if not all(hasattr(module, part) for part in parts) or not (width := _width(module.q_proj)):
        return False
    x = _input(module, width)
    positions = torch.arange(TOKENS, device=x.device)[None]
    try:
        embeddings = rotary(x, positions)
    except TypeError:  # a rotary embedding for each type of layer
        return False
    if not isinstance(embeddings, tuple):
        return False
    bounds = torch.tensor([0, TOKENS - 2, TOKENS], dtype=torch.int32)
    seen: dict[str, Any] = {}
    plain = module.forward
    expected = plain(
        hidden_states=x,
        position_embeddings=embeddings,
        attention_mask=x.new_empty(1, 1, 0, 0),
        cu_seq_lens_q=bounds,
        record=seen,
    )[0]
    if not seen:
        return False
    fast = attention_forward(module, plain, seen["scaling"], seen["sliding_window"], seen["softcap"])
    if not _same(fast(x, position_embeddings=embeddings, cu_seq_lens_q=bounds)[0], expected):
        return False
    module.forward = fast
    return True
