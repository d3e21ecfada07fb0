"""Where a run runs, in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.strategies import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE_KEYS = ("launch", "launch_target", "num_processes", "num_nodes", "strategy")


def place_text(config: Mapping[str, object], mirror: Mapping[str, object] | None) -> str:
    """Where a run runs and in how many processes: `box, 2 processes (DDP)`; empty for one process of this machine."""
    launch, target = str(config.get("launch") or "local"), config.get("launch_target")
    each, machines = _number(config.get("num_processes")), _number(config.get("num_nodes"))
    parts = []
    if mirror is not None:
        parts.append(str(mirror.get("host")))
    elif launch not in {"local", "torchrun"}:
        parts.append(f"{launch} {target}" if target else launch)
    if machines > 1:
        parts.append(f"{machines} machines")
    if each * machines > 1:
        strategy = str(config.get("strategy") or "ddp")
        label = STRATEGIES[strategy].label if strategy in STRATEGIES else strategy
        parts.append(f"{each * machines} processes ({label})")
    return ", ".join(parts)


def _number(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else 1  # noqa: PLR2004 - at most 1,024
