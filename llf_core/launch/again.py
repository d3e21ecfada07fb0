"""New runs that come from another one: the same once more, or what else could have become of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import yaml

from llf_core.launch.environment import start_facts
from llf_core.runs import Checkpoints, RunWriter, create_run, open_run, read_meta, read_status, status, update_env
from llf_core.runs.asked import read_config
from llf_core.runs.jsonl import as_number, encode, parse
from llf_core.runs.steering import BRANCH, Change, check, journal, write_replay

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llf_core.runs.folder import RunFolder

LIVE = ("learning_rate", "max_steps")
"""What a branch may have otherwise as a live run may be told to."""
KEYS = frozenset(
    "logging_steps save_steps save_strategy save_total_limit eval_steps eval_strategy early_stopping_steps "  # noqa: SIM905
    "watched_prompts watched_tokens max_grad_norm output_dir run_name".split()
)
"""Keys of the config that a branch may have otherwise too."""


def _threads(folder: RunFolder) -> dict[str, Any]:
    """The number of threads of a run: with another one sums differ in their last bits."""
    threads = _env(folder).get("threads")
    return {"threads": threads} if isinstance(threads, int) else {}


def _env(folder: RunFolder) -> dict[str, Any]:
    try:
        env = json.loads(folder.env.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return env if isinstance(env, dict) else {}


def replay(folder: RunFolder) -> RunFolder:
    """Makes the folder of a run of the same config and rows, to which the same is done at the same steps.

    Args:
        folder: the run to be repeated.

    Returns:
        The new run's folder, not started yet.

    Raises:
        ConfigError: its config has errors by now.
        FileNotFoundError: it is a branch, and the run that it comes from is gone.
        ValueError: it is a branch, and the checkpoint that it began with is gone.
    """
    from llf_core.config import RunConfig

    name = f"{read_meta(folder)['name'] or folder.id} again"
    parent = _env(folder).get("parent") or {}
    if parent.get("changes") is not None:
        new = branch(open_run(parent["run"], folder.home), parent["step"], parent["changes"], name)
        write_replay(new, [one for one in journal(folder) if one.step >= parent["step"]])
        return new
    loaded = RunConfig.load(folder.config)
    new = create_run(folder.config.read_text(encoding="utf-8"), name, folder.home)
    _copy_folders(folder, new)
    write_replay(new, journal(folder))
    update_env(new, **start_facts(loaded) | _threads(folder), parent={"run": folder.id, "step": 0})
    return new


def branch(
    folder: RunFolder, step: int | None = None, changes: Mapping[str, Any] | None = None, name: str | None = None
) -> RunFolder:
    """Makes the folder of a run that goes on at a checkpoint of another one and has something otherwise from there on.

    It begins with what the other run had come to: checkpoint, numbers, losses of examples, answers, changes.

    Args:
        folder: the run to branch from, live or past; it stays as it is.
        step: of its checkpoint; else the newest.
        changes: `learning_rate` (the schedule's peak), `max_steps`, or one of `KEYS`.
        name: what views call the new run.

    Returns:
        The new run's folder, not started yet.

    Raises:
        ValueError: there is no such checkpoint, nothing is left to train, or something cannot differ in a branch.
        ConfigError: the changed config has errors.
    """
    from llf_core.config import RunConfig

    step = _checkpoint(folder, step)
    asked = dict(changes or {})
    live = {key: asked.pop(key) for key in LIVE if key in asked}
    other = next((key for key in asked if key not in KEYS), None)
    if other is not None:
        allowed = ", ".join([*LIVE, *sorted(KEYS)])
        raise ValueError(f"{other} cannot differ in a branch, which goes on at a checkpoint. Expected {allowed}.")
    live = check(live) if live else {}
    _check_end(folder, step, live)
    # The other run's copy of its result is its own.
    values = read_config(folder.config) | {"output_dir": None} | asked
    config = RunConfig.load({key: value for key, value in values.items() if value is not None}, base=folder.path)
    text = yaml.safe_dump({key: value for key, value in values.items() if value is not None}, sort_keys=False)
    new = create_run(text, name or f"{read_meta(folder)['name'] or folder.id} from step {step}", folder.home)
    _copy_folders(folder, new)
    _copy_past(folder, new, step)
    shutil.copytree(Checkpoints(folder).path(step), Checkpoints(new).path(step), copy_function=_link)
    if folder.resolved.is_file():
        shutil.copy2(folder.resolved, new.resolved)
    if live:
        write_replay(new, [Change(step, live, BRANCH)])
    parent = {"run": folder.id, "step": step, "changes": dict(changes or {})}
    update_env(new, **start_facts(config) | _threads(folder), parent=parent)
    RunWriter(new).event("branched", run=folder.id, step=step, changes=dict(changes or {}))
    status.update(new, step=step, total=live.get("max_steps", read_status(folder).total))
    return new


def _checkpoint(folder: RunFolder, step: int | None) -> int:
    """The step to branch from."""
    steps = Checkpoints(folder).list()
    if not steps:
        raise ValueError(f"{folder.id} has no checkpoint to branch from. Expected one: ask for it, or set save_steps.")
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps))
        raise ValueError(f"{folder.id} has no checkpoint of step {step}. Expected one of {there}.")
    return steps[-1] if step is None else step


def _check_end(folder: RunFolder, step: int, live: Mapping[str, Any]) -> None:
    """Refuses a branch that would end where it begins."""
    end = live.get("max_steps", read_status(folder).total)
    if end <= step:
        raise ValueError(f"The checkpoint is of step {step}; the run ends at {end}. Expected max_steps above {step}.")


def _copy_folders(folder: RunFolder, new: RunFolder) -> None:
    for own, copy in ((folder.data, new.data), (folder.code, new.code)):
        if own.is_dir():
            shutil.copytree(own, copy)


def _copy_past(folder: RunFolder, new: RunFolder, step: int) -> None:
    """Copies what was written down up to a step, as of the first attempt, as if its last record had come just now."""
    for name in ("metrics", "examples", "samples", "events"):
        records = _past(getattr(folder, name), step)
        if name == "events":
            records = [record for record in records if record.get("type") == "steered"]
        late = time.time() - max((_time(record) for record in records), default=0.0)
        for record in records:
            record["attempt"] = 1
            if "time" in record:
                record["time"] = _time(record) + late
        with getattr(new, name).open("ab") as file:
            file.writelines(map(encode, records))


def _past(path: Path, step: int) -> list[dict[str, Any]]:
    """The records up to a step; of a step that was made more than once those of the last attempt."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = [record for record in map(parse, lines) if record and isinstance(record.get("step"), int)]
    found = [record for record in found if record["step"] <= step]
    last: dict[int, int] = {}
    for record in found:
        last[record["step"]] = max(last.get(record["step"], 1), record.get("attempt", 1))
    return [record for record in found if record.get("attempt", 1) == last[record["step"]]]


def _time(record: Mapping[str, Any]) -> float:
    return as_number(record.get("time")) or 0.0


def _link(source: str, target: str) -> None:
    """A second name for a file of a checkpoint, none of which is written again; a copy where that is impossible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
