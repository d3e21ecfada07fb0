"""Texts about a run's state: status sentence, available actions, messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.runs.change_journal import check_changes
from llf_core.runs.findings import advice, is_active
from llf_widgets.monitor import formatting

if TYPE_CHECKING:
    from llf_widgets.monitor.facts import Facts

UNDER_WAY = {
    "data": ("Preparing the data", "rows"),
    "reference": ("Computing reference log-probabilities", "examples"),
    "rollout": ("Generating completions", "completions"),
    "score": ("Scoring completions", "completions"),
}
"""Label and unit by type of a `progress` event."""
PHASES = {
    ("environment", None): "Importing the libraries",
    ("model", "find"): "Finding the model",
    ("model", "load"): "Loading the model",
    ("model", None): "Loading the model",
    ("data", None): "Preparing the data",
    ("first step", None): "Running the first step",
}
"""Label by `name` and `what` of a `phase` event."""
MESSAGES = 3  # the newest; all of them stand among the events


def sentence(facts: Facts) -> str:
    """One line about the current activity and what is safe; empty if the numbers suffice."""
    return {
        "created": _created,
        "starting": _starting,
        "running": _running,
        "stopping": _stopping,
        "stopped": _stopped,
        "finished": _finished,
        "failed": _failed,
        "lost": _lost,
        "broken": _broken,
    }.get(facts.state, _unknown)(facts)


def offers(facts: Facts) -> list[str]:
    """Available actions in this state: control requests, `resume` and `download`."""
    more = [what for what, can in (("evaluate", facts.held_out), ("sample", facts.watched)) if can]
    found = {
        "created": ["stop"] if facts.queue else [],
        "starting": ["stop", "kill"],
        "running": ["stop", "checkpoint", *more, "set", "kill"],
        "stopping": ["kill"],
        "finished": ["download", *(["ask"] if facts.generates else [])] if facts.output else [],
        "stopped": ["resume"],
        "failed": ["resume"],
        "lost": ["resume"],
    }.get(facts.state, [])
    return [*found, "rows"] if facts.step and facts.state not in {"created", "starting", "broken"} else found


def within(facts: Facts) -> str:
    """How long a request may wait for the current step."""
    if facts.state not in ("starting", "running", "stopping"):
        return ""
    if facts.step_seconds is None:
        return "after the current step"
    return f"within {_about(facts.step_seconds)}"


def messages(facts: Facts) -> list[dict[str, object]]:
    """Warnings, findings and refused requests of the current attempt, newest last.

    Returns:
        `{"level", "text", "actions"}` each; an action is `{"label", "change"}`, a change of the live run.
    """
    found: dict[str, dict[str, Any]] = {}
    for event in reversed(facts.events):
        if len(found) == MESSAGES:
            break
        if event.get("attempt", facts.attempt) != facts.attempt:
            continue
        kind, text = event.get("type"), event.get("message")
        if kind == "answer" and event.get("ok") is False and text:
            text = f"{str(event.get('request', 'The request')).capitalize()} was refused: {text}"
        elif kind not in ("warning", "finding") or not text:
            continue
        if not is_active(event, facts.state, facts.step):
            continue
        if what_to_do := advice(event, facts.state):
            text = f"{text} {what_to_do}"
        # a repeated warning stands once, where it came last
        found.setdefault(text, {"level": "warn", "text": text, "actions": _actions(event, facts)})
    return list(found.values())[::-1]


def _actions(event: dict[str, Any], facts: Facts) -> list[dict[str, object]]:
    """Live changes that a finding suggests, while the run trains."""
    change = event.get("change")
    if facts.state != "running" or not isinstance(change, dict) or not change:
        return []
    try:
        change = check_changes(change)
    except ValueError:  # of a newer version
        return []
    labels = {
        "learning_rate": lambda to: f"Set the learning rate to {formatting.rate(to)}",
        "max_steps": lambda to: f"Set the last step to {to:,}",
    }
    if not change.keys() <= labels.keys():
        return []
    if change.get("max_steps", facts.step + 1) <= facts.step:
        change = change | {"max_steps": facts.step + 1}
    return [{"label": labels[name](value), "change": {name: value}} for name, value in change.items()]


def level(facts: Facts) -> str:
    """Style of the status sentence: `error`, `warn`, or empty for plain text."""
    return {"failed": "error", "broken": "error", "lost": "warn"}.get(facts.state, "")


def _about(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 100 else f"{formatting.duration(seconds)} min"  # noqa: PLR2004


def _created(facts: Facts) -> str:
    return facts.queue or "Waiting for the trainer to start."


def _starting(facts: Facts) -> str:
    text = _progress(facts) or _phase(facts) or "Starting the trainer."
    return f"Attempt {facts.attempt}. {text}" if facts.attempt > 1 else text


def _phase(facts: Facts) -> str:
    """The current phase before the first step, and its duration."""
    event = facts.phase or {}
    name, what = event.get("name"), event.get("what")
    if not isinstance(name, str):
        return ""
    doing = PHASES.get((name, what if isinstance(what, str) else None)) or PHASES.get((name, None), name.capitalize())
    seconds = int(facts.phase_seconds)
    return f"{doing}, {_about(seconds)}." if seconds else f"{doing}."


def _progress(facts: Facts) -> str:
    """The current activity before a step, and its progress."""
    event = facts.progress or {}
    what, rows, of = event.get("what"), event.get("rows"), event.get("of")
    if not isinstance(what, str) or not isinstance(rows, int):
        return ""
    doing, things = UNDER_WAY.get(what, (what.capitalize(), "rows"))
    far = f"{rows:,} of {of:,} {things}" if isinstance(of, int) and of else f"{rows:,} {things}"
    tokens = event.get("tokens")
    if isinstance(tokens, int):  # answers end late and together
        far += f", {tokens:,} tokens so far"
    source = f" of {event['dataset']}" if isinstance(event.get("dataset"), str) else ""
    return f"{doing}: {far}{source}."


def _running(facts: Facts) -> str:
    if facts.progress:
        return _progress(facts)
    if facts.attempt > 1 and facts.resumed_from is not None:
        now = _receipt(facts) or (f" {_phase(facts)}" if facts.phase else "")
        return f"Attempt {facts.attempt}, resumed from step {facts.resumed_from}.{now}"
    return _phase(facts)


def _receipt(facts: Facts) -> str:
    """Whether the repeated steps match the log."""
    receipt = facts.receipt or {}
    steps, largest = receipt.get("steps"), receipt.get("largest")
    if not isinstance(steps, int) or not isinstance(largest, int | float):
        return ""
    made = "The repeated step matches" if steps == 1 else f"The first {steps} repeated steps match"
    if receipt.get("exact") is True:
        return f" {made} the log exactly."
    differ = "The repeated step differs" if steps == 1 else f"The first {steps} repeated steps differ"
    return f" {differ} from the log by up to {100 * largest:.2g} %."


def _stopping(facts: Facts) -> str:
    step = "" if facts.step_seconds is None else f" (up to {_about(facts.step_seconds)})"
    return f"Finishing the current step{step}, then saving a checkpoint."


def _stopped(facts: Facts) -> str:
    return facts.reason or f"Stopped at step {facts.step} of {facts.total}.{_whole(facts)}"


def _finished(facts: Facts) -> str:
    text = f"{facts.step:,} steps in {formatting.duration(facts.elapsed)}"
    if facts.created is not None and facts.ended is not None:
        text += f", {formatting.span(facts.created, facts.ended)}"
    text += "."
    if facts.reason:
        text += f" {facts.reason}"
    return f"{text} The result is in {facts.output}." if facts.output else text


def _failed(facts: Facts) -> str:
    text = facts.reason or "The trainer exited without a final status. See the log."
    last = next((event for event in reversed(facts.events) if event.get("type") == "error"), None)
    todo = "" if last is None or last.get("attempt", facts.attempt) != facts.attempt else last.get("what_to_do") or ""
    if todo and todo not in text:
        text = f"{text} {todo}"
    return text + (_whole(facts) if "checkpoint" not in text else "")


def _lost(facts: Facts) -> str:
    since = "" if facts.heartbeat is None else f" since {formatting.clock(facts.heartbeat)}"
    reason = facts.reason or "Its process no longer exists."
    return f"No heartbeat from the trainer{since}. {reason}" + (_whole(facts) if "checkpoint" not in reason else "")


def _broken(facts: Facts) -> str:
    return f"This run cannot be read. {facts.reason or 'Its status.json is missing or is not a JSON object.'}"


def _unknown(facts: Facts) -> str:
    return f"This version of LLF does not know the state {facts.state!r}. {facts.reason or ''}".strip()


def _whole(facts: Facts) -> str:
    return (
        f" checkpoint-{facts.checkpoints[-1]} is complete."
        if facts.checkpoints
        else " No checkpoint has been saved yet."
    )


def resume_label(facts: Facts) -> str:
    """Label of the resume button."""
    return f"Resume from {facts.checkpoints[-1]}" if facts.checkpoints else "Restart"


def front_end(facts: Facts, now: float) -> dict[str, object]:
    """All data of the header as plain JSON. The front end advances clocks from `now`.

    Args:
        facts: the run.
        now: Unix seconds.
    """
    return {
        "id": facts.id,
        "name": facts.name or facts.id,
        "state": facts.state,
        "live": facts.live,
        "about": facts.about,
        "says": sentence(facts),
        "level": level(facts),
        "step": facts.step,
        "total": facts.total,
        "epoch": None if facts.epoch is None else round(facts.epoch, 2),
        "epochs": facts.epochs,
        "elapsed": facts.elapsed,
        "remaining": facts.remaining,
        "checkpoints": list(facts.checkpoints),
        "checkpoint_time": facts.checkpoint_time,
        "heartbeat": facts.heartbeat,
        "numbers": [number.json() for number in facts.numbers],
        "messages": messages(facts),
        "offers": offers(facts),
        "within": within(facts),
        "resume": resume_label(facts),
        "rate": "" if facts.rate is None else formatting.rate(facts.rate),
        "now": now,
    }
