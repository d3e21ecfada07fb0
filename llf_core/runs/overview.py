"""Summary of a run as text for a terminal: state, metrics, and available commands."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from llf_core.config.adapter_servers import server_lines
from llf_core.config.number_format import exact
from llf_core.runs import formatting
from llf_core.runs.metric_catalog import lowercase_label
from llf_core.runs.run_table import age
from llf_core.runs.states import LIVE_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Facts: TypeAlias = "Mapping[str, Any]"
LABEL = 13  # width of the label column
NEXT: Mapping[str, tuple[tuple[str, str], ...]] = {
    "queued": (("remove from the queue", "kill"),),
    "starting": (("stop", "stop"),),
    "running": (("stop with a checkpoint", "stop"), ("save a checkpoint", "checkpoint")),
    "stopping": (("kill now", "kill"),),
    "stopped": (("resume", "resume"), ("branch with changed settings", "branch")),
    "failed": (("resume from the newest checkpoint", "resume"),),
    "lost": (("resume from the newest checkpoint", "resume"),),
    "finished": (("compare with the base model", "loss"), ("branch with changed settings", "branch")),
}
CHANGED_ASIDE = {"model_name_or_path", "dataset", "stage", "finetuning_type"}


def overview(  # noqa: PLR0913 - what it shows
    facts: Facts,
    *,
    changed: Mapping[str, object],
    findings: Sequence[str] = (),
    called: str = "",
    width: int = 80,
    now: float | None = None,
) -> list[str]:
    """Format a run summary as lines `Label  value`, followed by the commands that the run accepts now.

    Args:
        called: abbreviation of the id for commands. Default: the full id.
        width: line width in characters, at least 33; long words and commands exceed it.
        now: Unix seconds. Default: the current time.
    """
    lines: list[str] = []

    def tell(label: str, text: str | None) -> None:
        if text:
            wrapped = textwrap.wrap(text, max(20, width - LABEL), break_long_words=False, break_on_hyphens=False)
            lines.extend(f"{label if not at else '':{LABEL}}{part}" for at, part in enumerate(wrapped))

    tell("Run", str(facts["id"]))
    if facts["name"] and facts["name"] not in str(facts["id"]):
        tell("Name", str(facts["name"]))
    tell("State", _state(facts))
    tell("Reason", facts["reason"])
    for text in (facts["finding"], *findings):
        tell("Found", text)
    tell("Time", _time(facts, time.time() if now is None else now))
    tell("Model", facts["model"])
    tell("Data", facts["dataset"])
    tell("Method", ", ".join(str(one) for one in (facts["stage"], facts["method"]) if one))
    tell("Trained", (facts.get("trained") or {}).get("share"))
    tell(
        "Changed",
        ", ".join(f"{key} {_value(value)}" for key, value in changed.items() if key not in CHANGED_ASIDE),
    )
    tell("Numbers", _numbers(facts))
    tell("Checkpoints", _checkpoints(facts))
    tell("Result", facts["output"])
    for at, line in enumerate(server_lines(facts.get("servers"))):
        tell("" if at else "Servers", line)
    tell("Folder", f"{facts['folder']} ({' '.join(formatting.size(facts['bytes']))})")
    tell("Tags", ", ".join(facts["tags"]))
    tell("Note", facts["note"])
    lines += _next(facts, called or str(facts["id"]))
    return lines


def _state(facts: Facts) -> str:
    at = f" at step {facts['step']:,} of {facts['total']:,}" if facts["total"] else ""
    attempt = f", attempt {facts['attempt']}" if facts["attempt"] > 1 else ""
    left = facts["remaining"]
    remaining = f", {formatting.duration(left)} left" if isinstance(left, int | float) else ""
    return f"{facts['state']}{at}{attempt}{remaining}"


def _time(facts: Facts, now: float) -> str:
    if facts["created"] is None:
        return ""
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["created"]))
    until = facts["ended"]
    took = f", took {formatting.duration(until - facts['created'])}" if until is not None else ""
    return f"{made} ({age(now - facts['created'])} ago){took}"


def _numbers(facts: Facts) -> str:
    """The last logged values: the loss first, then the key metrics."""
    found = {"loss": facts["loss"], "eval_loss": facts["eval_loss"]}
    texts = [f"{name} {_number(value)}" for name, value in found.items() if value is not None]
    texts += [
        f"{lowercase_label(one['label'])} {formatting.value(float(one['value']), one['form'])}"
        for one in facts["counted"]
        if isinstance(one["value"], int | float)
    ]
    rate = facts["metrics"].get("learning_rate")
    if isinstance(rate, int | float):
        texts.append(f"learning rate {formatting.rate(rate)}")
    return ", ".join(texts)


def _number(value: object) -> str:
    return formatting.number(value) if isinstance(value, int | float) else str(value)


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, float):
        return exact(value)
    return repr(value) if isinstance(value, str) and " " in value else str(value)


def _checkpoints(facts: Facts) -> str:
    steps = facts["checkpoints"]
    if not steps:
        return "none yet" if facts["state"] in LIVE_STATES else "none"
    return f"at step {', '.join(f'{step:,}' for step in steps)}"


def _next(facts: Facts, called: str) -> list[str]:
    there = {"resume": True, "branch": bool(facts["checkpoints"]), "loss": bool(facts["output"])}
    commands = [one for one in NEXT.get(facts["state"], ()) if there.get(one[1], True)]
    lines: list[str] = []
    for why, command in commands:
        what_for = "restart" if command == "resume" and not facts["checkpoints"] else why
        lines.append(f"{'' if lines else 'Next':{LABEL}}llf runs {command} {called}  # {what_for}")
    return lines
