"""Texts about a run's state: status sentence, available actions, messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.number_format import with_unit
from llf_core.runs.control import check_changes
from llf_core.runs.findings import advice, is_active
from llf_core.runs.folder import RESULTS
from llf_core.runs.writer import work_after_steps
from llf_widgets.monitor import formatting
from llf_widgets.monitor.snapshot import PREDICTIONS

if TYPE_CHECKING:
    from llf_widgets.monitor.snapshot import RunSnapshot

PROGRESS_LABELS = {
    "data": ("Preparing the data", "rows"),
    "reference": ("Computing reference log-probabilities", "examples"),
    "rollout": ("Generating completions", "completions"),
    "score": ("Scoring completions", "completions"),
    PREDICTIONS: ("Answering the evaluation data", "records"),
}
"""Label and unit by type of a `progress` event."""
PHASE_LABELS = {
    ("environment", None): "Importing the libraries",
    ("model", "find"): "Finding the model",
    ("model", "load"): "Loading the model",
    ("model", None): "Loading the model",
    ("data", None): "Preparing the data",
    ("first step", None): "Running the first step",
    ("evaluation", None): "Training is done. Evaluating the model",
    ("saving", None): "Training is done. Saving the result",
    (PREDICTIONS, None): "The result is saved. Loading it to answer the evaluation data",
}
"""Label by `name` and `what` of a `phase` event."""
MAX_MESSAGES = 3  # the newest; all of them stand among the events


def status_text(snapshot: RunSnapshot) -> str:
    """One line about the current activity and what is safe; may be empty."""
    if snapshot.stale:
        return snapshot.stale
    return {
        "queued": _created,
        "created": _created,
        "starting": _starting,
        "running": _running,
        "stopping": _stopping,
        "stopped": _stopped,
        "finished": _finished,
        "failed": _failed,
        "lost": _lost,
        "broken": _broken,
    }.get(snapshot.state, _unknown)(snapshot)


def predictions_text(snapshot: RunSnapshot) -> str:
    """Folder and number of the run's predictions; empty while there are none, or some are missing."""
    found = snapshot.finished_predictions
    if found is None:
        return ""
    amount = with_unit(found.records, "record")
    if found.predicted is None:
        return f"The predictions of {amount} are in {snapshot.predictions}."
    if found.predicted < found.records:
        amount = f"{found.predicted:,} of {amount}"
    return f"The predictions of {amount} are in {snapshot.predictions}, their metrics in {RESULTS} beside it."


def available_actions(snapshot: RunSnapshot) -> list[str]:
    """The buttons of the header in this state, for requests that the trainer accepts.

    Returns:
        Control requests, `resume`, `download` (the result), `generate` (completions of the result) and `examples`.
    """
    more = [what for what, can in (("evaluate", snapshot.held_out), ("sample", snapshot.watched)) if can]
    found = {
        "queued": ["stop"],
        "starting": ["stop", "kill"],
        "running": ["stop", "kill"] if _predicts(snapshot) else ["stop", "checkpoint", *more, "set", "kill"],
        "stopping": ["kill"],
        "finished": ["download", *(["generate"] if snapshot.generates else [])] if snapshot.output else [],
        "stopped": ["resume"],
        "failed": ["resume"],
        "lost": ["resume"],
    }.get(snapshot.state, [])
    rowless = snapshot.state in {"queued", "created", "starting", "broken"}
    return [*found, "examples"] if snapshot.step and not rowless else found


def request_delay(snapshot: RunSnapshot) -> str:
    """How long a request may wait for the end of a step: `within 4 s`."""
    if snapshot.state not in ("starting", "running", "stopping"):
        return ""
    if snapshot.step_seconds is None:
        return "after the current step"
    return f"within {_about(snapshot.step_seconds)}"


def messages(snapshot: RunSnapshot) -> list[dict[str, object]]:
    """Warnings, findings and refused requests of the current attempt, each once, newest last.

    Returns:
        At most `MAX_MESSAGES` of `{"level", "text", "actions"}`; an action is `{"label", "change"}`, a change of the
        live run.
    """
    found: dict[str, dict[str, object]] = {}
    for event in reversed(snapshot.events):
        if len(found) == MAX_MESSAGES:
            break
        if event.get("attempt", snapshot.attempt) != snapshot.attempt:
            continue
        kind, text = event.get("type"), event.get("message")
        if kind == "answer" and event.get("ok") is False and text:
            text = f"{str(event.get('request', 'The request')).capitalize()} was refused: {text}"
        elif kind not in ("warning", "finding") or not text:
            continue
        if not is_active(event, snapshot.state, snapshot.step):
            continue
        if what_to_do := advice(event, snapshot.state):
            text = f"{text} {what_to_do}"
        # a repeated warning stands once, where it came last
        found.setdefault(text, {"level": "warn", "text": text, "actions": _actions(event, snapshot)})
    return list(found.values())[::-1]


def _actions(event: dict[str, object], snapshot: RunSnapshot) -> list[dict[str, object]]:
    change = event.get("change")
    if snapshot.state != "running" or not isinstance(change, dict) or not change:
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
    if change.get("max_steps", snapshot.step + 1) <= snapshot.step:
        change = change | {"max_steps": snapshot.step + 1}
    return [{"label": labels[name](value), "change": {name: value}} for name, value in change.items()]


def severity(snapshot: RunSnapshot) -> str:
    """Style of the status sentence: `error`, `warn`, or empty for plain text."""
    found = "warn" if snapshot.finding else ""
    return {"failed": "error", "broken": "error", "lost": "warn"}.get(snapshot.state, found)


def _about(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 100 else f"{formatting.duration(seconds)} min"  # noqa: PLR2004


def _created(snapshot: RunSnapshot) -> str:
    return snapshot.queue or "Waiting for the trainer to start."


def _starting(snapshot: RunSnapshot) -> str:
    text = _progress(snapshot) or _phase(snapshot) or "Starting the trainer."
    return f"Attempt {snapshot.attempt}. {text}" if snapshot.attempt > 1 else text


def _predicts(snapshot: RunSnapshot) -> bool:
    """Whether the run has trained, and answers its evaluation data."""
    return (snapshot.phase or {}).get("name") == PREDICTIONS


def _phase(snapshot: RunSnapshot) -> str:
    event = snapshot.phase or {}
    name, what = event.get("name"), event.get("what")
    if not isinstance(name, str):
        return ""
    doing = PHASE_LABELS.get((name, what if isinstance(what, str) else None)) or PHASE_LABELS.get(
        (name, None), name.capitalize()
    )
    seconds = int(snapshot.phase_seconds)
    return f"{doing}, {_about(seconds)}." if seconds else f"{doing}."


def _progress(snapshot: RunSnapshot) -> str:
    event = snapshot.progress or {}
    what, rows, of = event.get("what"), event.get("rows"), event.get("of")
    if not isinstance(what, str) or not isinstance(rows, int):
        return ""
    doing, things = PROGRESS_LABELS.get(what, (what.capitalize(), "rows"))
    amount = f"{rows:,} of {of:,} {things}" if isinstance(of, int) and of else f"{rows:,} {things}"
    tokens = event.get("tokens")
    if isinstance(tokens, int):  # answers end late and together
        amount += f", {with_unit(tokens, 'token')} so far"
    source = f" of {event['dataset']}" if isinstance(event.get("dataset"), str) else ""
    return f"{doing}: {amount}{source}."


def _running(snapshot: RunSnapshot) -> str:
    if snapshot.progress:
        return _progress(snapshot)
    if snapshot.attempt > 1 and snapshot.resumed_from is not None and not _predicts(snapshot):
        now = _receipt(snapshot) or (f" {_phase(snapshot)}" if snapshot.phase else "")
        now = now or f" {_after_steps(snapshot)}".rstrip()
        return f"Attempt {snapshot.attempt}, resumed from step {snapshot.resumed_from}.{now}"
    return _phase(snapshot) or _after_steps(snapshot)


def _after_steps(snapshot: RunSnapshot) -> str:
    return work_after_steps(snapshot.state, snapshot.step, snapshot.total, snapshot.phase)


def _receipt(snapshot: RunSnapshot) -> str:
    receipt = snapshot.receipt or {}
    steps, largest = receipt.get("steps"), receipt.get("largest")
    if not isinstance(steps, int):
        return ""
    made = "The repeated step matches" if steps == 1 else f"The first {steps} repeated steps match"
    if receipt.get("exact") is True:
        return f" {made} the log exactly."
    differ = "The repeated step differs" if steps == 1 else f"The first {steps} repeated steps differ"
    if not isinstance(largest, int | float):  # only one of two losses is finite
        return f" {differ} from the log."
    return f" {differ} from the log by up to {100 * largest:.2g} %."


def _stopping(snapshot: RunSnapshot) -> str:
    step = "" if snapshot.step_seconds is None else f" (up to {_about(snapshot.step_seconds)})"
    return f"Finishing the current step{step}, then saving a checkpoint."


def _stopped(snapshot: RunSnapshot) -> str:
    return snapshot.reason or f"Stopped at step {snapshot.step} of {snapshot.total}.{_checkpoint_text(snapshot)}"


def _finished(snapshot: RunSnapshot) -> str:
    text = f"{with_unit(snapshot.step, 'step')} in {formatting.duration(snapshot.elapsed)}"
    if snapshot.created is not None and snapshot.ended is not None:
        text += f", {formatting.span(snapshot.created, snapshot.ended)}"
    text += "."
    if snapshot.finding:
        text += f" {snapshot.finding}"
    if snapshot.reason:
        text += f" {snapshot.reason}"
    return f"{text} The result is in {snapshot.output}." if snapshot.output else text


def _failed(snapshot: RunSnapshot) -> str:
    text = snapshot.reason or "The trainer exited without a final status. See the log."
    last = next((event for event in reversed(snapshot.events) if event.get("type") == "error"), None)
    todo = "" if last is None or last.get("attempt", snapshot.attempt) != snapshot.attempt else last.get("what_to_do")
    if isinstance(todo, str) and todo and todo not in text:
        text = f"{text} {todo}"
    return text + (_checkpoint_text(snapshot) if "checkpoint" not in text else "")


def _lost(snapshot: RunSnapshot) -> str:
    since = "" if snapshot.heartbeat is None else f" since {formatting.clock(snapshot.heartbeat)}"
    reason = snapshot.reason or "Its process no longer exists."
    return f"No heartbeat from the trainer{since}. {reason}" + (
        _checkpoint_text(snapshot) if "checkpoint" not in reason else ""
    )


def _broken(snapshot: RunSnapshot) -> str:
    return f"This run cannot be read. {snapshot.reason or 'Its status.json is missing or is not a JSON object.'}"


def _unknown(snapshot: RunSnapshot) -> str:
    return f"This version of LLF does not know the state {snapshot.state!r}. {snapshot.reason or ''}".strip()


def _checkpoint_text(snapshot: RunSnapshot) -> str:
    if snapshot.checkpoints:
        return f" checkpoint-{snapshot.checkpoints[-1]} is complete."
    return " No checkpoint was saved." if snapshot.step else ""


def resume_label(snapshot: RunSnapshot) -> str:
    """Label of the resume button: from which checkpoint the run continues, or that it starts again."""
    return f"Resume from {snapshot.checkpoints[-1]}" if snapshot.checkpoints else "Restart"


def header_json(snapshot: RunSnapshot, now: float) -> dict[str, object]:
    """All data of the header as plain JSON; the front end advances clocks from `now`, in Unix seconds."""
    return {
        "id": snapshot.id,
        "name": snapshot.name or snapshot.id,
        "state": snapshot.state,
        "live": snapshot.live,
        "finding": bool(snapshot.finding),
        "description": snapshot.description,
        "status_text": status_text(snapshot),
        "level": severity(snapshot),
        "predictions_text": predictions_text(snapshot),
        "step": snapshot.step,
        "total": snapshot.total,
        "epoch": None if snapshot.epoch is None else round(snapshot.epoch, 2),
        "epochs": snapshot.epochs,
        "elapsed": snapshot.elapsed,
        "remaining": snapshot.remaining,
        "checkpoints": list(snapshot.checkpoints),
        "checkpoint_time": snapshot.checkpoint_time,
        "heartbeat": snapshot.heartbeat,
        "numbers": [number.json() for number in snapshot.numbers],
        "messages": messages(snapshot),
        "actions": available_actions(snapshot),
        "request_delay": request_delay(snapshot),
        "resume_label": resume_label(snapshot),
        "peak_learning_rate": ""
        if snapshot.peak_learning_rate is None
        else formatting.rate(snapshot.peak_learning_rate),
        "now": now,
    }
