"""Adapters on one set of weights: each replaces modules of the base while it is active."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.config import RunConfig
from llf_core.generation.weight_products import join_adapters
from llf_core.models.adapter_folder import adapter_settings
from llf_core.models.adapter_loading import load_adapter
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn
    from transformers import PreTrainedModel

CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""Initializations of LoRA with which PEFT changes the base's own weights when it loads the adapter."""


@dataclass(frozen=True)
class Replacement:
    """A module of the base, and the adapter's module (with the base's inside) that replaces it."""

    parent: nn.Module
    name: str
    base: nn.Module
    adapted: nn.Module


@dataclass(frozen=True)
class Adapter:
    """A loaded `PeftModel`, which computes with the adapter only while its replacements are in place."""

    model: Any
    replacements: tuple[Replacement, ...]


class Adapters:
    """Holds adapters by name, of which one or none is active.

    Each is loaded over the plain base, then its modules are taken out again, so that adapters may be of different
    types, and the base stays as fast as without them.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._base = model
        self._adapters: dict[str, Adapter] = {}
        self._active: Adapter | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._adapters

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter, replacing one of the same name, and join its matrices for decoding. It is active afterwards.

        Raises:
            ModelError: the adapter is missing, damaged, does not fit the model, or changes the base's own weights.
        """
        self._check(folder)
        shown = getattr(self._base, "name_or_path", "") or type(self._base).__name__
        config = RunConfig.load({"model_name_or_path": shown, "dataset": "unused", "finetuning_type": "lora"})
        weights = _BaseWeights(self._base)
        self._activate(None)
        before = [(module, dict(module._modules)) for module in self._base.modules()]  # noqa: SLF001 - torch has no public name
        wrapped: Any = None
        try:
            wrapped = load_adapter(self._base, str(folder), config)
        finally:
            found = tuple(
                Replacement(parent, child, base, parent._modules[child])  # noqa: SLF001
                for parent, children in before
                for child, base in children.items()
                if parent._modules.get(child) is not base and base is not None  # noqa: SLF001
            )
            for one in found:
                one.parent._modules[one.name] = one.base  # noqa: SLF001
            self._base.__dict__.pop("peft_config", None)  # PEFT warns of it when the next adapter is loaded
            weights.restore_flags()
        if changed := weights.changed():
            raise ModelError(
                f"The adapter {folder} changes the base's own weight {changed}. Expected an adapter that leaves the "
                "base as it is: merge it into a model of its own, and start the engine again."
            )
        wrapped.eval()
        _round_to_base(self._base, found)
        _share_containers(found)
        adapter = Adapter(wrapped, found)
        self._activate(adapter)
        join_adapters(wrapped)
        self._adapters[name] = adapter

    def unload(self, name: str) -> None:
        """Remove an adapter to free its memory. The base model is active afterwards."""
        self._activate(None)
        self._adapters.pop(name, None)

    @contextmanager
    def active(self, name: str | None) -> Iterator[Any]:
        """Context manager with the model to call; the adapter (None: the base) stays active until the next call."""
        adapter = None if name is None else self._adapters[name]
        self._activate(adapter)
        yield self._base if adapter is None else adapter.model

    def _activate(self, adapter: Adapter | None) -> None:
        if adapter is self._active:
            return
        if self._active is not None:
            for one in self._active.replacements:
                one.parent._modules[one.name] = one.base  # noqa: SLF001
        self._active = adapter
        if adapter is not None:
            for one in adapter.replacements:
                one.parent._modules[one.name] = one.adapted  # noqa: SLF001

    def _check(self, folder: Path) -> None:
        if not (folder / "adapter_config.json").is_file():
            return  # `load_adapter` says what is missing
        settings = adapter_settings(folder)
        begun = getattr(settings, "init_lora_weights", True)
        if isinstance(begun, str) and begun.lower().startswith(CHANGES_BASE):
            raise ModelError(
                f"The adapter {folder} has init_lora_weights: {begun}, with which PEFT changes the base's own weights. "
                "Expected an adapter that leaves the base as it is: convert it to a plain LoRA (PEFT's "
                "path_initial_model_for_weight_conversion), or merge it into a model of its own."
            )
        bias = getattr(settings, "bias", "none")
        if bias != "none":
            raise ModelError(
                f"The adapter {folder} has bias: {bias}, which replaces the base's own biases. Expected bias: none, or "
                "merge the adapter into a model of its own."
            )


def _round_to_base(base: PreTrainedModel, found: tuple[Replacement, ...]) -> None:
    """Store the matrices of LoRA in the base's 16-bit dtype, in which their products are computed anyway."""
    import torch

    dtypes = {parameter.dtype for parameter in base.parameters() if parameter.is_floating_point()}
    if len(dtypes) != 1 or not dtypes <= {torch.bfloat16, torch.float16}:
        return
    for one in found:
        for part in ("lora_A", "lora_B"):
            matrices = getattr(one.adapted, part, None)
            if isinstance(matrices, torch.nn.ModuleDict):
                matrices.to(*dtypes)


def _share_containers(found: tuple[Replacement, ...]) -> None:
    """Let all layers share empty containers and identities, of which PEFT makes five of 3 KB each for a LoRA layer."""
    from torch import nn

    shared: dict[object, nn.Module] = {}
    for one in found:
        for name, child in one.adapted._modules.items():  # noqa: SLF001 - torch has no public name
            container = child if isinstance(child, nn.ModuleDict | nn.ParameterDict) else None
            if container is not None and all(type(part) is nn.Identity for part in container.values()):
                one.adapted._modules[name] = shared.setdefault((type(child), *container.keys()), container)  # noqa: SLF001


class _BaseWeights:
    """Snapshot of the base model's weights: torch's counter of in-place changes, and their place in memory."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = [
            (name, weight, weight.data_ptr(), _version(weight), weight.requires_grad)
            for name, weight in model.named_parameters()
        ]

    def changed(self) -> str | None:
        """Name of the first weight that was changed or moved since."""
        for name, weight, place, version, _ in self._weights:
            if (weight.data_ptr(), _version(weight)) != (place, version):
                return name
        return None

    def restore_flags(self) -> None:
        """Restore `requires_grad` of each weight, since PEFT freezes a base."""
        for _, weight, _, _, trained in self._weights:
            weight.requires_grad_(trained)


def _version(weight: nn.Parameter) -> int:
    return 0 if weight.is_inference() else weight._version  # noqa: SLF001 - torch's counter of in-place changes
