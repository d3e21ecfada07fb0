"""Checks of the machine before Start (packages, disk, other runs), repeated while other runs are active."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.paths import is_there
from llf_core.config.rules.process import HERE
from llf_core.install_command import install_command
from llf_core.launch import free_bytes
from llf_core.launch.queue import MachineLoad
from llf_core.launch.send_run import is_sent
from llf_core.runs import home
from llf_core.runs.folder import blocked_path_message
from llf_widgets.forms.messages import Message
from llf_widgets.monitor.snapshot import Poller

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.config import RunConfig
    from llf_core.launch.queue import RunAhead

TRAINING_PACKAGES = ("torch", "transformers", "peft", "datasets")
DRIVE = Path("/content/drive/MyDrive")
_GB = 1e9
_SPARE_FACTOR = 1.2


def preflight_checks(config: RunConfig | None, ahead: Sequence[RunAhead] = ()) -> list[Message]:
    """All checks of the machine before Start; without a valid config, its disk space is not checked."""
    folder = home()
    found = [check_writable(folder), check_persistence(folder)]
    if config is None or not is_sent(config):  # a host that a run is sent to checks the rest itself
        found.insert(0, check_packages())
        found.append(None if config is None else check_disk(disk_bytes(config), folder))
    if config is None or config.launch.launch in HERE:
        found.append(check_machine_load(ahead))
    return [message for message in found if message is not None]


def check_packages(packages: Sequence[str] = TRAINING_PACKAGES) -> Message | None:
    """An error if a package for training is not installed, found without importing it; else None."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    names = " and ".join(f"`{name}`" for name in missing[:2])
    command = install_command("train")
    text = (
        f"Training needs {names}, which is not installed. Run `{command}` and restart the kernel. "
        "The form keeps its values."
    )
    return Message("error", text, copy=command)


def check_writable(folder: Path) -> Message | None:
    """An error if the folder of runs is not writable; else None."""
    if (message := blocked_path_message(folder)) is not None:
        return Message("error", message)
    place = _existing(folder / "runs")
    if os.access(place, os.W_OK | os.X_OK):
        return None
    text = f"Runs cannot be saved: `{place}` is read-only. Set `LLF_HOME` to a writable folder."
    return Message("error", text)


def check_disk(needed: int | None, folder: Path, runs: int = 1) -> Message | None:
    """An error if the disk has too little space for the runs, a warning if less than a fifth more than that is free.

    The fifth is a choice of this project: the forecast is an estimate, and other programs write to the disk too.
    """
    if needed is None:
        return None
    free = free_bytes(folder)
    needed *= runs
    writes = f"The {'run' if runs == 1 else f'{runs} runs'} will write about {needed / _GB:.1f} GB"
    if free < needed:
        text = (
            f"{writes}, and {free / _GB:.1f} GB are free in `{folder}`. Expected at least "
            f"{needed / _GB:.1f} GB: keep fewer checkpoints, or set `LLF_HOME` to a folder on a larger disk."
        )
        return Message("error", text)
    if free < _SPARE_FACTOR * needed:
        return Message("warning", f"{writes} of the {free / _GB:.1f} GB free in `{folder}`.")
    return None


def check_persistence(folder: Path) -> Message | None:
    """A warning in Colab if the run's folder is lost with the runtime; None otherwise."""
    if "google.colab" not in sys.modules or folder.is_relative_to(DRIVE.parent):
        return None
    text = (
        "Google Drive is not mounted, so the run is lost when this Colab session ends. "
        "Mount Drive, then run this cell again."
    )
    return Message("warning", text, copy="from google.colab import drive; drive.mount('/content/drive')")


def check_machine_load(ahead: Sequence[RunAhead]) -> Message | None:
    """A note if other runs use this device or wait for it, with the effect of queueing; None otherwise.

    The slowdown assumes that runs share the device equally: n at once take n times as long.
    """
    if not ahead:
        return None
    active = [one for one in ahead if not one.waits]
    first, others, waiting = ahead[0], len(active) - 1, len(ahead) - len(active)
    other_runs = f"{first}{' left' if first.remaining else ''}"
    after = "it" if len(ahead) == 1 else f"these {len(ahead)}"
    queue = f"If queued, this run starts after {after}."
    if not active:
        return Message("note", f"Another run is about to start on this device: {other_runs}. {queue}")
    if others:
        other_runs += f", and {others} more"
    if waiting:
        other_runs += f"; {waiting} queued"
    slowdown = (
        "Running both at once takes about twice"
        if not others
        else f"Running all at once takes about {others + 2} times"
    )
    return Message("note", f"Another run uses this device: {other_runs}. {slowdown} as long. {queue}")


def disk_bytes(config: RunConfig) -> int | None:
    """Peak disk usage of a run in bytes; None if the model's size or the number of trained parameters is unknown."""
    from llf_core.config.weight_shapes import ModelSizeError
    from llf_core.estimate import forecast_disk

    try:
        return forecast_disk(config)
    except ModelSizeError:
        return None


def _existing(folder: Path) -> Path:
    """The folder, or its nearest existing parent."""
    while not is_there(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


_CHECK_SECONDS = 5.0


@dataclass(frozen=True)
class MachineState:
    """Result of the checks: messages for the form, and running and queued runs of this machine."""

    messages: Sequence[Message] = ()
    ahead: Sequence[RunAhead] = ()

    @property
    def errors(self) -> list[str]:
        """Texts of the messages that disable Start."""
        return [message.text for message in self.messages if message.level == "error"]


class MachineChecks:
    """Checks environment, disk and other runs, at most every five seconds unless `fresh` is requested.

    While other runs are active, a thread checks too, since the form shows their step and remaining time.

    Args:
        on_change: called in the thread after something has changed.
        on_run_end: called in the thread after a run has ended, whose measurements correct the forecast.
    """

    def __init__(
        self,
        config: Callable[[], RunConfig | None],
        on_change: Callable[[], None],
        on_run_end: Callable[[], None],
    ) -> None:
        self._config, self._on_change, self._on_run_end = config, on_change, on_run_end
        self._load = MachineLoad()
        self._state = MachineState()
        self._checked = -math.inf
        self._followed: set[str] = set()  # runs whose end was not reported yet
        self._poller = Poller(self._poll, lambda _: None, "llf-studio")

    def state(self, *, fresh: bool = False) -> MachineState:
        """What the last checks found."""
        if fresh or time.monotonic() - self._checked > _CHECK_SECONDS:
            self._check()
            if self._state.ahead:
                self._poller.start()
        return self._state

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._poller.stop()

    def _check(self) -> MachineState:
        ahead = self._load.ahead()
        self._state = MachineState(preflight_checks(self._config(), ahead), ahead)
        self._checked = time.monotonic()
        self._followed.update(run.id for run in ahead)
        return self._state

    def _poll(self) -> float | None:
        """Check once, and return the seconds until the next time; None if no run is active."""
        before, now = self._state, self._check()  # a start here would undo a stop that comes meanwhile
        if now != before:
            self._on_change()
        ended = self._followed - {run.id for run in now.ahead}  # also those that another look has found first
        self._followed -= ended
        if ended:
            self._on_run_end()
        return _CHECK_SECONDS if now.ahead else None
