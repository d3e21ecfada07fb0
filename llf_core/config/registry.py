from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from llf_core import __version__
from llf_core.config.declaration import (
    ChatEngineDeclaration,
    Declaration,
    FormatDeclaration,
    MethodDeclaration,
    MetricDeclaration,
    ModifierDeclaration,
    OptimizerDeclaration,
    PluginError,
    StageDeclaration,
)
from llf_core.config.quantizers import QUANTIZERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llf_core.config.quantizers import Quantizer
    from llf_core.config.values import ConfigValues

DECLARATION_TYPES: tuple[type[Declaration], ...] = (
    MethodDeclaration,
    ModifierDeclaration,
    OptimizerDeclaration,
    StageDeclaration,
    FormatDeclaration,
    ChatEngineDeclaration,
    MetricDeclaration,
)
"""Declaration class of each kind; the entry point group of a kind is `llf.` and its plural."""
GROUPS: Mapping[str, str] = MappingProxyType({one.kind: f"llf.{one.kind}s" for one in DECLARATION_TYPES})
"""Entry point group of each kind."""
PREFIX = "llf."
OWN = "llf_core.config.declarations"
BUILT_IN: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "method": {
            "adalora": "methods.lora:ADALORA",
            "boft": "methods.oft:BOFT",
            "freeze": "methods.freeze:FREEZE",
            "full": "methods.freeze:FULL",
            "ia3": "methods.peft:IA3",
            "lora": "methods.lora:LORA",
            "oft": "methods.oft:OFT",
            "peft": "methods.peft:PEFT",
            "prefix": "methods.prompt:PREFIX",
            "prompt": "methods.prompt:PROMPT",
            "vera": "methods.lora:VERA",
        },
        "modifier": {
            "fp8": "modifiers:FP8",
            "liger": "modifiers:LIGER",
            "llama_pro": "modifiers:LLAMA_PRO",
            "mixture_of_depths": "modifiers:MIXTURE_OF_DEPTHS",
            "neftune": "modifiers:NEFTUNE",
            "router_loss": "modifiers:ROUTER_LOSS",
            "shift_attn": "modifiers:SHIFT_ATTN",
            "upcast_norms": "modifiers:UPCAST_NORMS",
        },
        "optimizer": {
            "adam_mini": "optimizers.adam_variants:ADAM_MINI",
            "adam_variants": "optimizers.adam_variants:ADAM_VARIANTS",
            "apollo": "optimizers.low_rank:APOLLO",
            "badam": "optimizers.badam:BADAM",
            "galore": "optimizers.low_rank:GALORE",
            "lomo": "optimizers.adam_variants:LOMO_OPTIMIZERS",
            "muon": "optimizers.adam_variants:MUON",
            "schedule_free": "optimizers.adam_variants:SCHEDULE_FREE",
            "torchao": "optimizers.transformers:TORCHAO",
            "transformers": "optimizers.transformers:TRANSFORMERS",
        },
        "stage": {
            "dpo": "stages.dpo:DPO",
            "grpo": "stages.sampled_groups:GRPO",
            "kd": "stages.sft:KD",
            "kto": "stages.dpo:KTO",
            "ppo": "stages.ppo:PPO",
            "pt": "stages.sft:PT",
            "rloo": "stages.sampled_groups:RLOO",
            "rm": "stages.dpo:RM",
            "sft": "stages.sft:SFT",
        },
        "format": {
            "alpaca": "formats:ALPACA",
            "openai": "formats:OPENAI",
            "sharegpt": "formats:SHAREGPT",
            "text": "formats:TEXT",
        },
        "chat_engine": {
            "huggingface": "chat_engines:OWN",
            "sglang": "chat_engines:SGLANG",
            "vllm": "chat_engines:VLLM",
        },
        "metric": {
            "bleu": "metrics:BLEU",
            "chrf": "metrics:CHRF",
            "exact_match": "metrics:EXACT_MATCH",
            "f1": "metrics:F1",
            "rouge": "metrics:ROUGE",
        },
    }
)
"""LLF's own plug-ins: by kind and name, the module in `llf_core.config.declarations` and the object in it."""
D = TypeVar("D", bound=Declaration)


@dataclass(frozen=True)
class Broken:
    """A plug-in that cannot be loaded, or that nothing calls.

    Attributes:
        name: the entry point's name.
        reason: one sentence with package and cause.
    """

    kind: str
    name: str
    reason: str


def declared(kind: type[D]) -> Mapping[str, D]:
    """The declarations of a kind (one of `DECLARATION_TYPES`) by name, ours and those of other installed packages."""
    return _loaded(kind.kind)[0]  # type: ignore[return-value]  # `_loaded` keeps what is of `kind`


def all_declared() -> Mapping[str, Declaration]:
    """Every declaration by `kind.name`."""
    return {f"{kind.kind}.{name}": one for kind in DECLARATION_TYPES for name, one in declared(kind).items()}


def method_of(config: ConfigValues) -> MethodDeclaration:
    """The method that a config selects."""
    return declared(MethodDeclaration)[config.method.finetuning_type]


def stage_of(config: ConfigValues) -> StageDeclaration:
    """The stage that a config selects."""
    return declared(StageDeclaration)[config.stage.stage]


def optimizer_of(config: ConfigValues) -> OptimizerDeclaration:
    """The optimizer that a config selects: the first whose switch is on, else that of `optim`."""
    optimizers = declared(OptimizerDeclaration)
    switched = (one for one in optimizers.values() if one.is_switched_on(config))
    return next(switched, optimizers[config.optimizer.optim])


def base_optimizer_of(config: ConfigValues) -> OptimizerDeclaration:
    """The optimizer that the selected one is built on, whose moments it keeps; itself if it is built on none."""
    selected = optimizer_of(config)
    if not selected.bases:
        return selected
    switched = selected.is_switched_on(config) and config.optimizer.optim != selected.name
    return declared(OptimizerDeclaration)[config.optimizer.optim if switched else selected.bases[0]]


def quantizer_of(config: ConfigValues) -> Quantizer:
    """The quantizer that a config names, whether or not it quantizes."""
    return QUANTIZERS[config.model.quantization_method]


def optimizer_packages(config: ConfigValues) -> tuple[str, ...]:
    """Packages that the selected optimizer and its base import, as pip calls them."""
    return tuple(dict.fromkeys((*optimizer_of(config).packages, *base_optimizer_of(config).packages)))


def modifiers_of(config: ConfigValues) -> tuple[ModifierDeclaration, ...]:
    """The modifiers that a config selects, in the order of their entry points' names, as they are applied.

    Raises:
        PluginError: two packages declare the same name.
    """
    return tuple(one for one in declared(ModifierDeclaration).values() if one.is_selected(config))


def broken() -> tuple[Broken, ...]:
    """The installed plug-ins that cannot be loaded, of which every config warns."""
    return tuple(one for kind in DECLARATION_TYPES for one in _loaded(kind.kind)[1])


def uncalled() -> tuple[Broken, ...]:
    """The installed plug-ins of kinds that nothing calls, which are not loaded; every config is an error."""
    found = []
    for group in sorted(_installed().groups):
        if not group.startswith(PREFIX) or group in GROUPS.values():
            continue
        kind = group.removeprefix(PREFIX).removesuffix("s")
        *others, last = GROUPS
        for point in _installed().select(group=group):
            reason = (
                f"{_package(point)} would have no effect, since LLF {__version__} calls no plug-in of this kind. "
                f"Expected a plug-in of the kinds {', '.join(others)} or {last}: uninstall the package."
            )
            found.append(Broken(kind, point.name, reason))
    return tuple(found)


@functools.cache
def _installed() -> Any:  # `EntryPoints`, in Python 3.11 its like
    """Entry points of all packages, read once, since each package has a file of its own."""
    return metadata.entry_points()


@functools.cache
def _loaded(kind: str) -> tuple[Mapping[str, Declaration], tuple[Broken, ...]]:
    found: dict[str, Declaration] = {}
    failed = []
    origin: dict[str, metadata.EntryPoint] = {}
    declaration = next(one for one in DECLARATION_TYPES if one.kind == kind)
    for point in _entry_points(kind):
        try:
            loaded = tuple(_declarations(point, declaration))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a package of somebody else, also one that calls `sys.exit`
            cause = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            failed.append(Broken(kind, point.name, f"{_package(point)} cannot be loaded: {cause}"))
            continue
        for one in loaded:
            if one.name in origin and origin[one.name].value != point.value:
                raise PluginError(
                    f"The {kind} {one.name!r} is registered by {_package(origin[one.name])} and by "
                    f"{_package(point)}. Uninstall one of them."
                )
            found[one.name], origin[one.name] = one, point
    return found, tuple(failed)


def _entry_points(kind: str) -> list[metadata.EntryPoint]:
    """LLF's own entry points of a kind and those of other packages, by name."""
    group = GROUPS[kind]
    ours = [metadata.EntryPoint(name, f"{OWN}.{value}", group) for name, value in BUILT_IN[kind].items()]
    others = [point for point in _installed().select(group=group) if not point.value.startswith(f"{OWN}.")]
    return sorted([*ours, *others], key=lambda point: point.name)


def _declarations(point: metadata.EntryPoint, kind: type[D]) -> Iterator[D]:
    """Load the declarations of an entry point: one plug-in, or a tuple of them."""
    loaded = point.load()
    for one in loaded if isinstance(loaded, tuple) else (loaded,):
        if not isinstance(one, kind):
            raise PluginError(f"it is not a {kind.__name__}, but {type(one).__name__!r}.")
        yield one


def _package(point: metadata.EntryPoint) -> str:
    own = point.value.startswith(f"{OWN}.")
    package = "llf" if own else point.dist.name if point.dist else "an unknown package"
    return f"{point.value} of {package}"
