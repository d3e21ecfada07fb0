"""The rank of LoRA and AdaLoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix, Problem
from llf_core.config.weight_shapes import targeted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from llf_core.config.problem import Severity
    from llf_core.config.values import ConfigValues

SMALLEST_SHARE = 0.02
"""Share of superfluous parameters without a note, since some gates are one row; chosen by hand."""


def check_rank(
    config: ConfigValues, key: str, shapes: Mapping[str, tuple[int, ...]], requested: Collection[str]
) -> Problem | None:
    """Check that the rank of a new adapter is not above the shorter sides of its targets.

    A matrix `[out, in]` has at most the rank min(out, in), and so has its update. PEFT trains more columns without a
    message. A warning if the rank is above the shorter side of every target, a note if it is above some.

    Args:
        key: the option of the rank, such as `lora_rank`.
        shapes: shape of each weight of the model, by its name.
        requested: names of the target modules, or `all`.
    """
    targets = new_targets(config, shapes, requested)
    rank = int(config.get(key))
    narrow = {name: shape for name, shape in targets.items() if min(shape) < rank}
    superfluous = sum((rank - min(shape)) * sum(shape) for shape in narrow.values())
    if superfluous <= SMALLEST_SHARE * rank * sum(sum(shape) for shape in targets.values()):
        return None
    everywhere = len(narrow) == len(targets)
    sides = sorted({min(shape) for shape in narrow.values()})
    highest = sides[-1] if everywhere else sides[0]
    shown = f"{sides[0]} to {sides[-1]}" if len(sides) > 1 else f"{highest}"
    message = (
        f"`{key}` is {rank}, above the shorter side of {'every target' if everywhere else modules(narrow)} ({shown}). "
        "The update of a matrix has no higher rank, so the columns beyond it use memory and learn nothing more. "
        f"Expected at most {highest}."
    )
    fixes = (Fix(f"Set to {highest}", {key: highest}),)
    severity: Severity = "warning" if everywhere else "note"
    return Problem("violation", key, rank, message, fixes, severity, keys=(key, "model_name_or_path"))


def new_targets(
    config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], requested: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Select the weights that a new adapter is put on; none where the config continues an adapter."""
    if config.get("adapter_name_or_path") and not config.method.create_new_adapter:
        return {}
    return targeted(shapes, requested)


def modules(names: Collection[str]) -> str:
    """Format the modules of weights for a message: `k_proj and v_proj`."""
    *others, last = sorted({name.removesuffix(".weight").rpartition(".")[2] for name in names})
    return f"{', '.join(others)} and {last}" if others else last
