"""New runs from existing ones: exact repeats, and branches with changed settings."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llf_core.config.paths import expanded
from llf_core.launch.environment import start_facts
from llf_core.launch.resume import check_place, check_stored, check_urls, stored_config
from llf_core.runs import Checkpoints, create_run, open_run, read_meta, status, update_env
from llf_core.runs.archive import copy_folder
from llf_core.runs.config_file import read_config, run_config
from llf_core.runs.control import Change, check_changes, read_changes, write_replay
from llf_core.runs.files import open_to_append
from llf_core.runs.foreign_code import check_run
from llf_core.runs.jsonl import as_number, encode, records
from llf_core.runs.trust import sign_run
from llf_core.runs.writer import write_event
from llf_core.untrusted import HISTORY_BYTES, read_object, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llf_core.runs.folder import RunFolder

LIVE_SETTINGS = ("learning_rate", "max_steps")
"""Settings that a branch changes like a live run."""
BRANCH_KEYS = frozenset(
    "logging_steps save_steps save_strategy save_total_limit eval_steps eval_strategy early_stopping_steps "  # noqa: SIM905
    "watched_prompts watched_tokens max_grad_norm output_dir run_name".split()
)
HISTORY_GAP_SECONDS = 0.001
"""Seconds between the last copied record and the new run's creation; chosen by hand."""


def _threads(folder: RunFolder) -> dict[str, object]:
    threads = read_object(folder.env).get("threads")
    return {"threads": threads} if isinstance(threads, int) else {}


def replay(folder: RunFolder, trust: bool | str = False, *, env: Mapping[str, str] | None = None) -> RunFolder:
    """Create a run with the same config and rows, and the same live changes at the same steps; it is not started.

    Raises:
        ValueError: the checkpoint that it branched from is gone, or its folder was changed by hand.
    """
    check_run(folder, trust, _how_to_allow(folder, "replay"))
    name = f"{read_meta(folder)['name'] or folder.id} again"
    told = read_changes(folder)
    parent = read_object(folder.env).get("parent")
    if isinstance(parent, dict) and isinstance(parent.get("changes"), dict):
        named, step = parent.get("run"), parent.get("step")
        if not isinstance(named, str) or not isinstance(step, int):
            raise ValueError(  # noqa: TRY004 - of a file that was changed
                f"{folder.id}/env.json does not say which run and step it branched from. Expected the file as it was "
                "written: restore it, or branch again."
            )
        other = open_run(named, folder.home)
        check_run(other, trust, _how_to_allow(folder, "replay"))
        further = [change for change in told if change.step >= step]
        check_urls(read_config(other.config), "replay", env)
        return _branch(other, step, parent["changes"], name, further)
    check_stored(folder, "replay", env)
    loaded = run_config(folder)

    def fill(new: RunFolder) -> None:
        _copy_folders(folder, new)
        write_replay(new, told)
        update_env(new, **start_facts(loaded) | _threads(folder), parent={"run": folder.id, "step": 0})

    return _proven(create_run(read_text(folder.config), name, folder.home, fill))


def _how_to_allow(folder: RunFolder, what: str) -> str:
    return f"run.{what}(trust=True), or in a terminal: llf runs {what} {folder.id} --trust"


def _proven(new: RunFolder) -> RunFolder:
    sign_run(new)
    return new


def branch(  # noqa: PLR0913 - each of them is optional
    folder: RunFolder,
    step: int | None = None,
    changes: Mapping[str, object] | None = None,
    name: str | None = None,
    trust: bool | str = False,
    *,
    env: Mapping[str, str] | None = None,
) -> RunFolder:
    """Create a run that continues from a checkpoint of another run with changed settings; it is not started.

    The checkpoint and the history up to it (metrics, example losses, samples, changes) are copied; the curve of the new
    run starts at step 0. For the arguments see `Run.branch`.
    """
    check_run(folder, trust, _how_to_allow(folder, "branch"))
    step = _checkpoint(folder, step)
    changes = dict(changes or {})
    live = {key: changes[key] for key in LIVE_SETTINGS if key in changes}
    own = [Change(step, check_changes(live), f"branch-{secrets.token_hex(4)}")] if live else []
    name = name or str(changes.get("run_name") or "") or f"{read_meta(folder)['name'] or folder.id} from step {step}"
    check_urls(read_config(folder.config), "branch", env)
    return _branch(folder, step, changes, name, own)


def _branch(
    folder: RunFolder, step: int, changes: Mapping[str, object], name: str, further: Sequence[Change]
) -> RunFolder:
    """Create a branch with scheduled changes `further`."""
    from llf_core.config import ConfigError, RunConfig
    from llf_core.config.read_config import dump_yaml

    changed = _config_changes(changes)
    # The other run's copy of its result is its own.
    values = read_config(folder.config, named=False) | {"output_dir": None} | changed
    values = {key: value for key, value in values.items() if value is not None}
    try:
        config = RunConfig.load(values, base=folder.path)
    except ConfigError:
        stored_config(folder, "branch")  # what is wrong without the changes too
        raise
    check_place(config)
    before = [change for change in read_changes(folder) if change.step <= step]

    def fill(new: RunFolder) -> None:
        total = _copy_checkpoint(folder, new, step)
        total = next((one.changes["max_steps"] for one in reversed(further) if "max_steps" in one.changes), total)
        if total <= step:
            raise ValueError(
                f"max_steps is {total}, and the checkpoint is at step {step}. Expected max_steps above {step}."
            )
        _copy_folders(folder, new)
        _copy_history(folder, new, step)
        with suppress(FileNotFoundError):
            new.resolved.write_text(read_text(folder.resolved), encoding="utf-8")
        write_replay(new, [*before, *further])
        parent = {"run": folder.id, "step": step, "changes": dict(changes)}
        update_env(new, **start_facts(config) | _threads(folder), parent=parent)
        write_event(new, 1, "branched", run=folder.id, step=step, changes=dict(changes))
        status.update(new, step=step, total=total)

    return _proven(create_run(dump_yaml(values), name, folder.home, fill))


def _config_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = {key: value for key, value in changes.items() if key not in LIVE_SETTINGS}
    for key, value in changed.items():
        if key not in BRANCH_KEYS:
            allowed = ", ".join([*LIVE_SETTINGS, *sorted(BRANCH_KEYS)])
            raise ValueError(
                f"{key} cannot be changed in a branch, since it continues from a checkpoint. Expected {allowed}."
            )
        if key.endswith("_steps") and isinstance(value, float) and value < 1:
            raise ValueError(
                f"{key} is {value:g}. Expected a number of steps: a branch does not support a share of all steps."
            )
    if isinstance(changed.get("output_dir"), str) and changed["output_dir"]:
        changed["output_dir"] = str(expanded(changed["output_dir"]).absolute())
    return changed


def _checkpoint(folder: RunFolder, step: int | None) -> int:
    steps = Checkpoints(folder).list()
    if not steps:
        raise ValueError(f"{folder.id} has no checkpoint to branch from. Request one while it runs, or set save_steps.")
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps))
        raise ValueError(f"{folder.id} has no checkpoint of step {step}. Expected one of {there}.")
    return steps[-1] if step is None else step


def _copy_checkpoint(folder: RunFolder, new: RunFolder, step: int) -> int:
    """Copy a checkpoint and the best checkpoint it refers to; returns its `max_steps`, 0 if unknown."""
    own = Checkpoints(new)
    Checkpoints(folder).check()
    best = _state(Checkpoints(folder).path(step)).get("best_global_step")
    for each in {step, best if isinstance(best, int) and best > 0 else step}:
        with suppress(OSError):
            copy_folder(Checkpoints(folder).path(each), own.path(each), _link)
    if not own.complete(step):
        raise ValueError(f"The checkpoint of step {step} was removed while it was copied. Branch from a later one.")
    total = _state(own.path(step)).get("max_steps")
    return total if isinstance(total, int) else 0


def _state(checkpoint: Path) -> dict[str, object]:
    return read_object(checkpoint / "trainer_state.json", HISTORY_BYTES)


def _copy_folders(folder: RunFolder, new: RunFolder) -> None:
    for own, copy in ((folder.data, new.data), (folder.code, new.code)):
        if own.is_symlink():
            raise ValueError(f"{own.name} of {folder.id} is a link. Expected a folder.")
        if own.is_dir():
            copy_folder(own, copy)


def _copy_history(folder: RunFolder, new: RunFolder, step: int) -> None:
    """Copy the records up to a step as attempt 0, shifted in time to end just before the creation of `new`."""
    past = {name: _records_until(getattr(folder, name), step) for name in ("metrics", "examples", "samples", "events")}
    past["events"] = [record for record in past["events"] if record.get("type") == "steered"]
    times = [_time(record) for told in past.values() for record in told if "time" in record]
    shift = (status.read_status(new).created or time.time()) - HISTORY_GAP_SECONDS - max(times, default=0.0)
    for name, told in past.items():
        for record in told:
            record["attempt"] = 0
            if "time" in record:
                record["time"] = _time(record) + shift
        with open_to_append(getattr(new, name)) as file:
            file.writelines(map(encode, told))


def _records_until(path: Path, step: int) -> list[dict[str, object]]:
    found = [record for record in records(path) if isinstance(record.get("step"), int) and record["step"] <= step]
    return sorted(found, key=lambda record: as_number(record.get("attempt")) or 1.0)


def _time(record: Mapping[str, object]) -> float:
    return as_number(record.get("time")) or 0.0


def _link(source: str, target: str) -> None:
    """Hard-link a checkpoint file, which is never modified; copy it if links are not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
