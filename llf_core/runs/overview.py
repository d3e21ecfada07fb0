"""One run as text for a terminal: what became of it, its numbers, and what can be done now."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import exact
from llf_core.runs import formatting
from llf_core.runs.metric_catalog import within
from llf_core.runs.run_table import age

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LABEL = 13  # characters of the column of labels
NEXT: Mapping[str, tuple[tuple[str, str], ...]] = {
    "created": (("it waits in the queue; end it with", "kill"),),
    "starting": (("end it with", "stop"),),
    "running": (("end it with a checkpoint", "stop"), ("write a checkpoint", "checkpoint")),
    "stopping": (("end it at once", "kill"),),
    "stopped": (("go on", "resume"), ("go on with other settings", "branch")),
    "failed": (("go on from the newest checkpoint", "resume"),),
    "lost": (("go on from the newest checkpoint", "resume"),),
    "finished": (("compare with the base", "loss"), ("go on with other settings", "branch")),
}
"""By state: what for, and which command."""
CHANGED_ASIDE = {"model_name_or_path", "dataset", "stage", "finetuning_type"}
"""Keys that stand in lines of their own."""


def overview(  # noqa: PLR0913 - what it shows
    facts: Mapping[str, Any],
    *,
    changed: Mapping[str, Any],
    findings: Sequence[str] = (),
    called: str = "",
    width: int = 80,
    now: float | None = None,
) -> list[str]:
    """Lines of the form `Label  value`.

    Args:
        facts: `Run.summary()`.
        changed: what the run asks for that is no default.
        findings: what was found wrong in it.
        called: what the run is called in a command, where that is not its whole id.
        width: characters of a line; longer values go on in the next one.
        now: Unix seconds.
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
    for text in findings:
        tell("Found", text)
    tell("Time", _time(facts, time.time() if now is None else now))
    tell("Model", facts["model"])
    tell("Data", facts["dataset"])
    tell("Method", ", ".join(str(one) for one in (facts["stage"], facts["method"]) if one))
    tell(
        "Changed",
        ", ".join(f"{key} {_value(value)}" for key, value in changed.items() if key not in CHANGED_ASIDE),
    )
    tell("Numbers", _numbers(facts))
    tell("Checkpoints", _checkpoints(facts))
    tell("Result", facts["output"])
    tell("Folder", f"{facts['folder']} ({' '.join(formatting.size(facts['bytes']))})")
    tell("Tags", ", ".join(facts["tags"]))
    tell("Note", facts["note"])
    lines += _next(facts, called or str(facts["id"]))
    return lines


def _state(facts: Mapping[str, Any]) -> str:
    at = f" at step {facts['step']:,} of {facts['total']:,}" if facts["total"] else ""
    attempt = f", attempt {facts['attempt']}" if facts["attempt"] > 1 else ""
    left = facts["remaining"]
    remaining = f", {formatting.duration(left)} left" if isinstance(left, int | float) else ""
    return f"{facts['state']}{at}{attempt}{remaining}"


def _time(facts: Mapping[str, Any], now: float) -> str:
    if facts["created"] is None:
        return ""
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["created"]))
    until = facts["ended"]
    took = f", took {formatting.duration(until - facts['created'])}" if until is not None else ""
    return f"{made} ({age(now - facts['created'])} ago){took}"


def _numbers(facts: Mapping[str, Any]) -> str:
    """The last logged values: the loss first, then what counts beside it."""
    found = {"loss": facts["loss"], "eval_loss": facts["eval_loss"]}
    texts = [f"{name} {_number(value)}" for name, value in found.items() if value is not None]
    texts += [
        f"{within(one['label'])} {formatting.value(float(one['value']), one['form'])}"
        for one in facts["counted"]
        if isinstance(one["value"], int | float)
    ]
    rate = facts["metrics"].get("learning_rate")
    if isinstance(rate, int | float):
        texts.append(f"learning rate {formatting.rate(rate)}")
    return ", ".join(texts)


def _number(value: Any) -> str:
    return formatting.number(value) if isinstance(value, int | float) else str(value)


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, float):
        return exact(value)
    return repr(value) if isinstance(value, str) and " " in value else str(value)


def _checkpoints(facts: Mapping[str, Any]) -> str:
    steps = facts["checkpoints"]
    if not steps:
        return "none yet" if facts["state"] in {"created", "starting", "running", "stopping"} else "none"
    return f"at step {', '.join(f'{step:,}' for step in steps)}"


def _next(facts: Mapping[str, Any], called: str) -> list[str]:
    """What can be done now, a command each; none that this run would refuse."""
    there = {"resume": True, "branch": bool(facts["checkpoints"]), "loss": bool(facts["output"])}
    commands = [one for one in NEXT.get(facts["state"], ()) if there.get(one[1], True)]
    lines: list[str] = []
    for why, command in commands:
        what_for = "begin again" if command == "resume" and not facts["checkpoints"] else why
        lines.append(f"{'' if lines else 'Next':{LABEL}}llf runs {command} {called}  # {what_for}")
    return lines
