"""Rules about the choice of an optimizer."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerDeclaration
from llf_core.config.number_format import exact
from llf_core.config.problem import Fix
from llf_core.config.registry import declared, method_of, optimizer_of, optimizer_packages
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


def optimizer_rules() -> tuple[Rule, ...]:
    """Create the rules about the installed optimizers from their traits."""
    switches = tuple(one.switch for one in declared(OptimizerDeclaration).values() if one.switch)
    return (
        Rule((*switches,), lambda c: len(_switched_on(c)) > 1, _several, _one_alone),
        Rule(("optim", *switches), lambda c: bool(_wrong_base(c)), _wrong_base, _right_base),
        Rule(
            ("optim", "finetuning_type", *switches),
            lambda c: method_of(c).adapter and not optimizer_of(c).trains_adapters,
            lambda c: (
                f"{optimizer_of(c).label} is for the model's own weights, and finetuning_type "
                f"{c.method.finetuning_type} trains an adapter instead. Expected finetuning_type full or freeze."
            ),
            lambda c: (
                Fix("Train the whole model", {"finetuning_type": "full"}),
                Fix("Use AdamW", {"optim": None, **_off(c)}),
            ),
        ),
        Rule(
            ("gradient_accumulation_steps", "optim", *switches),
            lambda c: _layerwise(c) and c.training.gradient_accumulation_steps > 1,
            lambda c: (
                f"`gradient_accumulation_steps` is {c.training.gradient_accumulation_steps}. Layer-wise updates apply "
                "each gradient in the backward pass that computes it, so none is left to accumulate. Expected 1."
            ),
            (Fix("Set to 1", {"gradient_accumulation_steps": 1}),),
        ),
        Rule(
            ("fp16", "optim", *switches),
            lambda c: _layerwise(c) and c.training.fp16,
            "fp16 scales the loss and checks all gradients before an update, and layer-wise updates never have all "
            "gradients at once. Expected bf16, or float32.",
            (Fix("Use bf16", {"fp16": False, "bf16": True}), Fix("Remove fp16", {"fp16": False})),
        ),
        Rule(
            ("max_grad_norm", "optim", *switches),
            lambda c: _layerwise(c) and c.optimizer.max_grad_norm > 0,
            lambda c: (
                f"`max_grad_norm` ({exact(c.optimizer.max_grad_norm)}) has no effect: layer-wise updates apply each "
                "gradient before the norm of all is known."
            ),
            (Fix("Switch clipping off", {"max_grad_norm": 0.0}),),
            severity="note",
        ),
        Rule(
            ("optim", *switches),
            lambda c: find_spec("torch") is not None and bool(missing_packages(c)),
            lambda c: (
                f"{optimizer_of(c).label} needs {missing_packages(c)[0]}, which is not installed. {install_command(c)}"
            ),
            lambda c: (Fix("Use AdamW", {"optim": None, **_off(c)}),),
        ),
    )


def missing_packages(config: ConfigValues) -> list[str]:
    """Packages of the selected optimizer that are not installed, as pip calls them."""
    return [name for name in optimizer_packages(config) if find_spec(name.replace("-", "_")) is None]


def install_command(config: ConfigValues) -> str:
    """Sentence with the command that installs missing packages of the selected optimizer; empty if there are none."""
    missing = missing_packages(config)
    return f"Run: pip install {' '.join(missing)}." if missing else ""


def _layerwise(config: ConfigValues) -> bool:
    return optimizer_of(config).layerwise(config)


def _switched_on(config: ConfigValues) -> list[OptimizerDeclaration]:
    return [one for one in declared(OptimizerDeclaration).values() if one.is_switched_on(config)]


def _off(config: ConfigValues) -> dict[str, object]:
    return {one.switch: None for one in _switched_on(config)}


def _several(config: ConfigValues) -> str:
    switches = [f"`{one.switch}`" for one in _switched_on(config)]
    return f"{', '.join(switches[:-1])} and {switches[-1]} each select an optimizer, and a run has one. Expected one."


def _one_alone(config: ConfigValues) -> tuple[Fix, ...]:
    chosen = _switched_on(config)
    return tuple(
        Fix(f"Use {one.label}", {other.switch: None for other in chosen if other is not one}) for one in chosen
    )


def _wrong_base(config: ConfigValues) -> str:
    """Reason why `optim` does not fit the switch that is on, as a sentence; empty if it does."""
    selected, base = optimizer_of(config), config.optimizer.optim
    if not selected.is_switched_on(config) or base in {*selected.bases, selected.name}:
        return ""
    *others, last = selected.bases
    expected = f"{', '.join(others)} or {last}" if others else last
    return f"`optim` is {base}, which {selected.label} (`{selected.switch}`) is not built on. Expected {expected}."


def _right_base(config: ConfigValues) -> tuple[Fix, ...]:
    selected, base = optimizer_of(config), config.optimizer.optim
    return (
        Fix(f"Set optim to {selected.bases[0]}", {"optim": selected.bases[0]}),
        Fix(f"Use {declared(OptimizerDeclaration)[base].label}", {selected.switch: None}),
    )
