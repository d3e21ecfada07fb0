"""Fetches a run that another machine has copied to its `sync_to`, to resume it here."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from typing import TYPE_CHECKING

from llf_core.config.read_config import dump_yaml
from llf_core.config.sections import scheme_of
from llf_core.launch.environment import cpu_name, packages
from llf_core.launch.run import Run
from llf_core.launch.sync_process import KEY
from llf_core.redaction.file_modes import folder_mode, make_private
from llf_core.runs import Checkpoints, RunFolder, delete_run, read_status
from llf_core.runs.archive import check_free_bytes
from llf_core.runs.config_file import read_config
from llf_core.runs.creation import rename_to_free_id, write_config
from llf_core.runs.folder import home_folder
from llf_core.runs.formatting import size
from llf_core.runs.run_store import RunStore, SyncError, TornError, runs_at
from llf_core.runs.status import BrokenRunError
from llf_core.runs.writer import write_event
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llf_core.runs.run_store import SyncedState

logger = logging.getLogger(__name__)


def fetch(url: str, *, home: Path | str | None = None, progress: Callable[[int, int], object] | None = None) -> Run:
    """Fetch the newest complete state of a run that another machine has copied, so that this one resumes it.

    Each file is compared with its hash; if a state is damaged, the one before is used. An older copy of the run on this
    machine goes to the bin; a copy that is as new is used as it is. The event `fetched` and the log say what was
    fetched, and whether its losses will repeat.

    Args:
        url: the run's copy: its `sync_to` and its id.
        home: `LLF_HOME`. Default: from the environment.
        progress: called with the bytes done and their total.

    Raises:
        SyncError: there is no complete state, another machine still trains the run, the place cannot be read, or its
            package is missing.
    """
    store = RunStore(url)
    states = store.states()
    if not states:
        raise SyncError(_nothing_at(store))
    if message := store.training_message():
        raise SyncError(message)
    runs = home_folder(home) / "runs"
    local = RunFolder(runs / states[0].run)
    if local.path.exists() and _is_as_new(local, states[0]):
        logger.info(f"This machine has {local.id} as it was copied, or newer.")
        return Run(local)
    runs.mkdir(parents=True, exist_ok=True)
    work, state, torn = _fetched(store, states, runs, progress)
    try:
        new = RunFolder(work)
        _keep_place(new, store.url)
        make_private(work)
        if local.path.exists():
            delete_run(local.id, home)
        run = rename_to_free_id(work, runs, state.run)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    said = " ".join([*torn, _receipt(run, state)])
    write_event(run, state.attempt, "fetched", step=state.step, url=store.url, host=state.host, message=said)
    logger.info(said)
    return Run(run)


def _fetched(
    store: RunStore, states: list[SyncedState], runs: Path, progress: Callable[[int, int], object] | None
) -> tuple[Path, SyncedState, list[str]]:
    """The newest undamaged state, in a hidden folder, and why newer ones were not used."""
    torn: list[str] = []
    for state in states:
        work = runs / f".new-{os.getpid()}-{secrets.token_hex(4)}"
        check_free_bytes(sum(length for length, _ in state.files.values()), runs, f"The run {state.run}")
        mode = folder_mode()
        work.mkdir(mode=0o777 if mode is None else mode)
        try:
            store.fetch(state, work, progress)
        except TornError as error:
            shutil.rmtree(work, ignore_errors=True)
            torn.append(f"{error} The state of step {state.step} was not taken.")
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        else:
            return work, state, torn
    raise SyncError(f"{' '.join(torn)} There is no other complete state.")


def _nothing_at(store: RunStore) -> str:
    if store.is_begun():
        return f"{store.url} has no complete state of a run: its upload broke off, or files are missing."
    known = runs_at(store.url)
    if known:
        names = ", ".join(known[-5:])
        return f"{store.url} is not a run. It holds {names}: give one of them, such as {store.url}/{known[-1]}."
    return f"There is no copy of a run at {store.url}. Expected the value of `sync_to` and the id of the run."


def _is_as_new(local: RunFolder, state: SyncedState) -> bool:
    steps = Checkpoints(local).list()
    try:
        return (read_status(local).attempt, max(steps, default=0)) >= (state.attempt, state.step)
    except BrokenRunError:
        return False


def _keep_place(run: RunFolder, url: str) -> None:
    """Set `sync_to` to where the run was fetched from: a folder may have another path here."""
    place = url.rpartition("/")[0]
    if scheme_of(place) == "" and read_config(run.config).get(KEY) != place:
        write_config(run, dump_yaml(read_config(run.config, named=False) | {KEY: place}))


def _receipt(run: RunFolder, state: SyncedState) -> str:
    """Describe what was fetched, and what differs between the machines."""
    total = " ".join(size(sum(length for length, _ in state.files.values())))
    what = f"checkpoint-{state.step}" if state.step else "the state before the first checkpoint"
    env = read_object_or_empty(run.env)
    there, here = env.get("packages"), packages()
    facts = {**(there if isinstance(there, dict) else {}), "processor": (env.get("device") or {}).get("name")}
    now = {**here, "processor": cpu_name()}
    differ = [f"{name} ({facts[name]} there, {now.get(name)} here)" for name in facts if facts[name] != now.get(name)]
    exact = (
        f"Different here: {', '.join(differ)}. The losses may differ in their last digits."
        if differ
        else "Packages and processor are the same, so the losses repeat to the last bit."
    )
    return (
        f"Fetched {what} of attempt {state.attempt} on {state.host}: {len(state.files)} files, {total}, each with its "
        f"hash. {exact}"
    )
