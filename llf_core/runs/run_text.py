"""Runs as text for a terminal: a table, and a summary of one with its metrics and available commands."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from llf_core.config.adapter_servers import server_lines
from llf_core.config.number_format import exact
from llf_core.runs import formatting
from llf_core.runs.charts import lowercase_label
from llf_core.runs.folder import short_id
from llf_core.runs.formatting import DAY, HOUR, MINUTE, number
from llf_core.runs.states import LIVE_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.runs.listing import Row

HEAD = ("RUN", "NAME", "STATE", "STEP", "LOSS", "AGE")
RIGHT = {"STEP", "LOSS", "AGE"}
GAP = "  "
MIN_NAME_WIDTH = 10


def table(rows: Sequence[Row], known: Sequence[str], width: int, now: float | None = None) -> list[str]:
    """Format runs for a terminal: a header and one line each, with a second one for the reason of a run's state.

    For finished and stopped runs the second line is their finding instead, if there is one.

    Args:
        known: ids of all runs, to abbreviate ids unambiguously.
        width: line width in characters. Names are shortened in the middle; lines may still exceed it.
    """
    moment = time.time() if now is None else now
    cells = [HEAD, *(_cells(row, known, moment) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    others = sum(widths) - widths[1] + len(GAP) * (len(HEAD) - 1)
    widths[1] = min(widths[1], max(MIN_NAME_WIDTH, width - others))
    lines = [_line(cells[0], widths)]
    for row, line in zip(rows, cells[1:], strict=True):
        lines.append(_line(line, widths))
        told = row.finding if row.state in {"finished", "stopped"} else row.reason
        if told:
            lines.append(GAP + _end_cut(told, width - len(GAP)))
    return lines


def _cells(row: Row, known: Sequence[str], now: float) -> tuple[str, ...]:
    steps = f"{row.step:,}/{row.total:,}" if row.total else ""
    loss = "" if row.loss is None else number(row.loss)
    born = "" if row.created is None else age(now - row.created)
    return (short_id(row.id, known), " ".join(row.name.split()), row.state, steps, loss, born)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for title, cell, width in zip(HEAD, cells, widths, strict=True):
        text = middle_cut(cell, width)
        parts.append(text.rjust(width) if title in RIGHT else text.ljust(width))
    return GAP.join(parts).rstrip()


def age(seconds: float) -> str:
    """Format an age in its largest unit: `12 s`, `7 min`, `3 h`, `5 d`; a negative one counts as 0."""
    whole = max(0, int(seconds))
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def middle_cut(text: str, width: int) -> str:
    """Shorten a text to `width` characters (at least 1) with `…` in the middle, since names differ at their ends."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def _end_cut(text: str, width: int) -> str:
    """Put a text on one line, shortened at the end with `…`, since the cause of a failure comes first."""
    first = " ".join(text.split())
    return first if len(first) <= width else f"{first[: max(0, width - 1)]}…"


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
