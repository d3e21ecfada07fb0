"""Accelerates a loaded model in place: replaces its parts, compares each with the original, keeps what is equal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from llf_core.acceleration.patching import attention_backend
from llf_core.acceleration.patching.causal_head import accept_objective, causal_of, install_head
from llf_core.acceleration.patching.equivalence import EquivalenceCheck
from llf_core.acceleration.patching.fast_forwards import RECIPE, install, is_adapted, linear_forward
from llf_core.acceleration.patching.matching import QKV, TEST_ERRORS, match_attention, match_mlp, match_norm
from llf_core.acceleration.patching.per_document import call_per_document

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from torch import nn
    from transformers import PreTrainedModel

    from llf_core.acceleration.patching.fast_forwards import Forward

OWN = (install.__module__, call_per_document.__module__)
"""Modules of the forwards that are installed here, without the head's."""


@dataclass(frozen=True)
class Accelerated:
    """Result of `accelerate`.

    Attributes:
        forks: whether documents may have branches that do not attend to each other.
        notes: sentences for a log: what is accelerated, what is unchanged, and why.
        why: reason why batches may not be flattened, as a sentence; else empty.
    """

    flattens: bool
    notes: tuple[str, ...]
    why: str = ""
    forks: bool = False


@dataclass(frozen=True)
class Parts:
    """What `accelerate` has replaced in a model, to replace it in the same model of another process.

    Attributes:
        attention: name of its attention.
        forwards: by path of the module, the new forward or what makes it.
        head: path of the decoder in the causal model, scale and soft cap; None without a forward for objectives.
    """

    attention: str
    forwards: Mapping[str, Any]
    head: tuple[str, float, float | None] | None


def parts_of(model: nn.Module) -> Parts:
    """Find what `accelerate` or `install_head` has replaced in a model."""
    causal: Any = causal_of(model)
    forwards = {}
    for path, module in model.named_modules():
        forward = getattr(vars(module).get("forward"), "__func__", None)
        if getattr(forward, "__module__", "") in OWN:
            forwards[path] = getattr(forward, RECIPE, forward)
    decoder = getattr(causal, "_llf_decoder", None)
    path = next((path for path, module in causal.named_modules() if module is decoder), "")
    return Parts(causal.config._attn_implementation, forwards, None if decoder is None else (path, *causal._llf_terms))


def take_over(model: nn.Module, parts: Parts) -> None:
    """Replace in a model what was replaced in the same model of another process, which alone has its weights."""
    causal = causal_of(model)
    if parts.attention != causal.config._attn_implementation:
        attention_backend.register()
        causal.set_attn_implementation(parts.attention)
    for path, found in parts.forwards.items():
        install(model.get_submodule(path), found.forward() if hasattr(found, "forward") else found)
    if parts.head is not None:
        path, scale, softcap = parts.head
        accept_objective(model, causal.get_submodule(path), scale, softcap)


def accelerate(model: nn.Module, *, attention: bool = True, padded: str = "", device: str | None = None) -> Accelerated:
    """Replace the forwards of a model's norms, MLPs, attentions and LoRA layers by faster ones with the same result.

    Norms, MLPs and attentions are recognized by what a small copy of them computes, LoRA layers by their class, and the
    whole model is compared with its original state. The model's attention and the forward that its head needs are
    replaced too, see `EquivalenceCheck.flattens` and `install_head`.

    Args:
        attention: whether its attention may be replaced; otherwise batches are not flattened.
        padded: why the adapter forbids flattened batches, as a sentence; else empty.
        device: where the model will compute, to compare it there; None for where it is.
    """
    accelerated = _patch_decoder(model, attention=attention, padded=padded, device=device)
    plain_head = install_head(model)
    if not plain_head:
        return accelerated
    notes = (*accelerated.notes, f"The loss is computed from all logits: {plain_head}")
    return replace(accelerated, notes=notes)


def _patch_decoder(
    model: nn.Module, *, attention: bool = True, padded: str = "", device: str | None = None
) -> Accelerated:
    """`accelerate` without the head, for models that are called without an objective."""
    causal: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    training = [module for module in model.modules() if module.training]
    place = causal.device
    elsewhere = device if device is not None and device != place.type else None
    for module in training:  # eval() would take longer than the test itself
        vars(module)["training"] = False
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return _patch(causal, attention=attention, padded=padded, device=elsewhere)
    finally:
        if elsewhere is not None:
            causal.to(place)
        for module in training:
            vars(module)["training"] = True


def _patch(causal: PreTrainedModel, *, attention: bool, padded: str, device: str | None) -> Accelerated:
    try:
        check = EquivalenceCheck(causal, device)
    except TEST_ERRORS as error:
        untested = f"{type(causal).__name__} cannot be tested ({str(error).partition(chr(10))[0]})."
        return Accelerated(flattens=False, notes=(f"Fast path: none, because {untested}",), why=untested)
    refused = padded or "the model's own attention is requested."
    why: str | None = check.flattens() if attention and not padded else refused
    done: Counter[str] = Counter()
    try:
        done = _replace(causal, check, attention=why is None)
        difference = check.difference(flatten=why is None)
    except TEST_ERRORS as error:
        difference = f"{type(causal).__name__} cannot be run ({str(error).partition(chr(10))[0]})."
    if difference:
        restore(causal)
        notes = [f"Fast path: none, because with it {difference}"]
    else:
        parts = ["batches without padding"] if why is None else []
        parts += [f"{count} {what}" for what, count in sorted(done.items())]
        notes = [f"Fast path: {', '.join(parts) or 'no part of this model is supported'}."]
    if why is not None:
        notes.append(f"Batches are padded: {why}")
    if check.separate_modules:
        count = len(check.separate_modules)
        what = "1 module restarts" if count == 1 else f"{count} modules restart"
        notes.append(f"{what} for each document.")
    return Accelerated(why is None, tuple(notes), why or "", forks=why is None and check.forks())


def restore(model: nn.Module) -> None:
    """Restore the forwards of the parts after a failed comparison.

    The head, the attention implementation and what `call_per_document` has replaced stay, on which batches rely.
    """
    for module in model.modules():
        if getattr(vars(module).get("forward"), "__module__", None) == OWN[0]:
            del module.forward


def _replace(causal: nn.Module, check: EquivalenceCheck, *, attention: bool) -> Counter[str]:
    done: Counter[str] = Counter()
    inside: set[nn.Module] = set()
    fitted: dict[Hashable, tuple[str, Forward] | None] = {}
    for module in check.decoder.modules():
        if "forward" in vars(module) or not _may_fit(module):  # another library has replaced some
            continue
        what = check.formula_key(module)
        if what not in fitted:
            try:
                fitted[what] = _fit(module, check.calls.get(what) if attention else None)
            except TEST_ERRORS:
                fitted[what] = None
        if (found := fitted[what]) is None:
            continue
        name, forward = found
        install(module, forward)
        done[name] += 1
        if name != "norms":
            inside.update(module.children())
    for module in causal.modules():
        if is_adapted(module) and "forward" not in vars(module):
            install(module, linear_forward)
            done["other LoRA layers"] += module not in inside
    return +done


def _may_fit(module: nn.Module) -> bool:
    parts = module._modules
    return type(module).__name__.endswith("RMSNorm") or "down_proj" in parts or any(names[0] in parts for names in QKV)


def _fit(module: nn.Module, called: Mapping[str, object] | None) -> tuple[str, Forward] | None:
    if type(module).__name__.endswith("RMSNorm"):
        norm = match_norm(module)
        return None if norm is None else ("norms", norm)
    if hasattr(module, "down_proj"):
        mlp = match_mlp(module)
        return None if mlp is None else ("MLPs", mlp)
    attention = None if called is None else match_attention(module, called)
    return None if attention is None else ("attentions", attention)
