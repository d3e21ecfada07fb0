"""Runs as listed, in the same words in all views, read from three small files each."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from llf_core.config.sections import STRATEGIES
from llf_core.redaction import redact, redact_nested
from llf_core.runs.charts import EVAL_PREFIX, key_values
from llf_core.runs.checkpoints import has_weights, recoverable_message
from llf_core.runs.config_file import read_meta, run_config
from llf_core.runs.disk_errors import failure_message, is_unwritable
from llf_core.runs.files import special_file
from llf_core.runs.folder import RunFolder, home_folder
from llf_core.runs.formatting import strip_bidi
from llf_core.runs.jsonl import spell_non_finite
from llf_core.runs.pace import CurveSummary, Pace, curve_summary, evaluated, last_logged_step, read_pace, remaining
from llf_core.runs.parameter_grid import parameter_grid
from llf_core.runs.status import BrokenRunError, effective_status, is_never_started, kept_reason, read_status
from llf_core.untrusted import NotPlainError, open_file
from llf_core.untrusted.plain_yaml import yaml_value
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.runs.status import Status

CONFIG_HEAD = 32 * 1024  # bytes
PLACE_KEYS = ("launch", "launch_target", "num_processes", "num_nodes", "strategy")
SHOWN_KEYS = ("model_name_or_path", "dataset", "stage", "finetuning_type", *PLACE_KEYS)
_KEY = re.compile(rf"^({'|'.join(SHOWN_KEYS)}):(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One run in a list. Times are Unix seconds; what is None or empty is unknown.

    Attributes:
        state: the effective state, or `broken` with the reason.
        total: planned steps; 0 if unknown.
        ended: when the attempt ended; None while it has not.
        heartbeat: when its processes last wrote its status.
        attempt: number of the attempt, from 1.
        reason: why the run is in this state, in sentences.
        finding: what its curves say against the result of a finished run.
        place: where it runs, see `place_text`; empty for one process of this machine.
        method: `finetuning_type` of its config.
        step_seconds: duration of the last step.
        per_step: current seconds per step, evaluations and checkpoints included.
        spark: a few values of the primary metric, from first to last.
        loss: last logged training loss, possibly NaN or infinite.
        eval_loss: last evaluation loss.
        counted: key metrics other than the loss, as `{"name", "label", "form", "value"}`, most important first.
        evaluated: last values of the metrics of evaluations by name, as logged, without bounds of intervals.
        weights: whether there is a result or a complete checkpoint; None if not looked for.
    """

    id: str
    name: str
    state: str
    step: int = 0
    total: int = 0
    created: float | None = None
    ended: float | None = None
    heartbeat: float | None = None
    step_seconds: float | None = None
    per_step: float | None = None
    attempt: int = 1
    reason: str | None = None
    finding: str | None = None
    device: str | None = None
    host: str | None = None
    place: str = ""
    model: str = ""
    dataset: str = ""
    stage: str = ""
    method: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""
    spark: tuple[float, ...] = ()
    loss: float | None = None
    eval_loss: float | None = None
    counted: tuple[dict[str, Any], ...] = ()
    evaluated: Mapping[str, float] = field(default_factory=dict)
    weights: bool | None = None

    @property
    def remaining(self) -> float | None:
        """Estimated seconds to the last planned step, see `pace.remaining`."""
        return remaining(self.state, self.step, self.total, self.per_step)

    @cached_property
    def text(self) -> str:
        """The row as JSON text without secrets; cached."""
        return json.dumps(redact_nested(self.json()))

    def json(self) -> dict[str, Any]:
        """The row as a JSON object; non-finite numbers are strings."""
        lists = {name: list(getattr(self, name)) for name in ("tags", "spark", "counted")}
        more = lists | {"evaluated": dict(self.evaluated), "remaining": self.remaining}
        found: dict[str, object] = spell_non_finite(asdict(self) | more)
        return found


@dataclass(frozen=True)
class SortMetric:
    """A metric of evaluations by which runs can be sorted."""

    name: str
    label: str
    form: str
    better: Literal["higher", "lower"]


@dataclass(frozen=True)
class Page:
    """Some of the matching runs, and the number of all.

    Attributes:
        reading: number of indexed runs and of all runs; None once all are indexed, and for a query that needs no index.
        metrics: evaluation metrics of the indexed runs with a known better direction.
    """

    total: int
    rows: tuple[Row, ...]
    reading: tuple[int, int] | None = None
    metrics: tuple[SortMetric, ...] = ()

    def json(self) -> dict[str, Any]:
        """The page as a JSON object: `total`, `runs` (see `Row.json`), and `metrics` and `reading` if there are any."""
        return {"total": self.total, "runs": [row.json() for row in self.rows], **self._more()}

    def text(self) -> str:
        """The page as JSON text, joined from the cached texts of its rows."""
        more = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in self._more().items())
        return f'{{"total": {self.total}, "runs": [{", ".join(row.text for row in self.rows)}]{more}}}'

    def _more(self) -> dict[str, Any]:
        reading = {} if self.reading is None else {"reading": {"done": self.reading[0], "of": self.reading[1]}}
        metrics = {"metrics": [asdict(one) for one in self.metrics]} if self.metrics else {}
        return metrics | reading


def read_row(folder: RunFolder, *, curve: bool = True) -> Row:
    """Read one run for a list, without secrets. Never raises for a broken folder; the row has the reason.

    Without `curve`, metrics are not read, and weights are not looked for.
    """
    special = special_file(folder.path)
    if special:
        return Row(folder.id, folder.id, "broken", reason=f"{special} is not a regular file. Remove it or the run.")
    meta = read_meta(folder)
    name, tags = meta["name"] or folder.id, tuple(map(str, meta["tags"]))
    try:
        status = shown_status(folder)
    except BrokenRunError as error:
        return Row(folder.id, name, "broken", reason=redact(str(error)), tags=tags, note=meta["note"])
    config = _config_head(folder)
    went = curve_summary(folder) if curve else CurveSummary()
    pace = read_pace(folder, status) if curve else Pace(status.step, status.step_seconds)
    return Row(
        id=folder.id,
        name=name,
        state=status.state,
        step=pace.step,
        total=status.total,
        created=status.created,
        ended=status.ended,
        heartbeat=status.heartbeat,
        step_seconds=status.step_seconds,
        per_step=pace.per_step,
        attempt=status.attempt,
        reason=None if status.reason is None else redact(status.reason),
        finding=status.finding,
        device=status.device,
        host=status.host,
        place=place_text(config, status.mirror),
        model=config.get("model_name_or_path", ""),
        dataset=config.get("dataset", ""),
        stage=config.get("stage", ""),
        method=config.get("finetuning_type", ""),
        tags=tags,
        note=meta["note"],
        spark=went.points,
        loss=went.last.get("loss"),
        eval_loss=went.last.get(EVAL_PREFIX + "loss"),
        counted=tuple(key_values(went.last)),
        evaluated=evaluated(went.last),
        weights=has_weights(folder) if curve else None,
    )


def _config_head(folder: RunFolder) -> dict[str, str]:
    """The config keys shown in lists, found without a YAML parser, which would take milliseconds."""
    try:
        descriptor = open_file(folder.config)
    except OSError:
        return {}
    try:
        head = redact(os.read(descriptor, CONFIG_HEAD).decode("utf-8", "replace"))
    except OSError:
        return {}
    finally:
        os.close(descriptor)
    found = {}
    for key, text in _KEY.findall(head):
        try:
            value = yaml_value(text) if any(mark in text for mark in "'\"[{#&*!|>") else text.strip()
        except NotPlainError:  # unbalanced brackets, an alias
            continue
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if value not in (None, "null", "~"):
            found[key] = strip_bidi(str(value))
    return found


def free_bytes(given: Path | str | None = None) -> int:
    """Free bytes on the disk of `LLF_HOME`, or of another folder, which need not exist yet."""
    path = home_folder(given)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


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


def trained_json(
    folder: RunFolder, event: Mapping[str, object] | None, config: RunConfig | None = None
) -> dict[str, Any]:
    """What a run trains, as JSON, from its config and last event `model`.

    Returns:
        `grid` (see `parameter_grid`) and `servers` (see `adapter_servers.Servers.json`), each None if unknown;
        `servers` also for a run that has ended without a result or a checkpoint.
    """
    from llf_core.config.adapter_servers import named_type, servers_of_run

    found = event or {}
    try:
        servers = (
            None
            if effective_status(read_status(folder)).has_ended and not has_weights(folder)
            else servers_of_run(
                config or run_config(folder), folder.output, folder.home, named_type(found.get("model_type"))
            )
        )
    except UserError:  # a config that is no longer valid is no reason not to show the run
        servers = None
    return {
        "grid": parameter_grid(found.get("map"), found.get("parameters"), found.get("trainable")),
        "servers": None if servers is None else servers.json(),
    }


def last_model_event(events: Iterable[Mapping[str, object]]) -> Mapping[str, Any] | None:
    """The last event `model` among some."""
    return next((event for event in reversed(list(events)) if event.get("type") == "model"), None)


def shown_status(folder: RunFolder) -> Status:
    """The status of a run as views show it.

    A run that waits in the queue is `queued`. A lost run has the reason kept by `final_status`, or a sentence with its
    last step and what can be recovered.
    """
    status = effective_status(read_status(folder))
    if status.mirror is not None:  # what its host says
        return status
    if is_never_started(folder, status):
        status = dataclasses.replace(status, state="lost")
    if status.state == "created" and folder.queue.exists():
        return dataclasses.replace(status, state="queued")
    if status.state != "lost":
        return status
    step = last_logged_step(folder, status)
    at = f"at step {step} of {status.total}" if status.total else "before the first step"
    reason = kept_reason(folder, status.attempt) or _why_lost(folder, at)
    return dataclasses.replace(status, step=step, reason=reason)


def _why_lost(folder: RunFolder, at: str) -> str:
    gone = f"The run's processes exited without a final status, {at}."
    return (
        " ".join([gone, *failure_message(folder)]) if is_unwritable(folder) else f"{gone} {recoverable_message(folder)}"
    )
