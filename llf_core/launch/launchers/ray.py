"""Ray: a task of an existing cluster starts the supervisor on a node with room, in the shared folder of runs.

`ray_driver` submits the task, `ray_node` is the task, `cluster_watch` stays on this machine.
"""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.launch.launchers.launcher import Launcher
from llf_core.launch.local_process import mark_failed, rendezvous_of, start_supervisor
from llf_core.launch.queue import enqueue
from llf_core.redaction.redact_text import URLS_VARIABLE
from llf_core.runs import read_status, status, update_env
from llf_core.runs.config_file import run_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config.values import ConfigValues
    from llf_core.runs import RunFolder

HOST = "ray"
"""Host of a run that waits for room in a cluster, see `WaitingRun`."""
ANSWER_SECONDS = 5.0


def _address(target: str | None) -> str | None:
    """Address of the head: the target, or the cluster of this machine, found as Ray finds it."""
    if target is not None:
        return target
    if os.environ.get("RAY_ADDRESS", "auto") != "auto":
        return os.environ["RAY_ADDRESS"]
    try:
        return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster").read_text().strip()  # noqa: S108
    except OSError:
        return None


def _unavailable(config: ConfigValues) -> str | None:
    if find_spec("ray") is None:
        return "Ray is not installed. Run: pip install ray."
    if config.launch.launch != RAY.name:
        return None
    address = _address(config.launch.launch_target)
    if address is None:
        return (
            "No Ray cluster runs on this machine. Set `launch_target` to HOST:PORT of its head, as ray start shows it."
        )
    try:
        socket.create_connection(rendezvous_of(address), ANSWER_SECONDS).close()
    except ValueError:
        return (
            f"`launch_target` is {address!r}. Expected HOST:PORT of the head of a Ray cluster, such as 10.0.0.1:6379."
        )
    except OSError as error:
        return f"The head of the Ray cluster at {address} does not answer: {error.strerror or error}."
    return None


def _start(folder: RunFolder, env: Mapping[str, str], command: Sequence[str] | None) -> None:
    attempt, config = read_status(folder).attempt, run_config(folder)
    if {**os.environ, **env}.get(URLS_VARIABLE):
        reason = "Keys in the URLs of a config are not sent through Ray. Download the data first, and name the files."
        raise RuntimeError(mark_failed(folder, attempt, reason))
    address = _address(config.launch.launch_target)
    if address is None:
        raise RuntimeError(mark_failed(folder, attempt, str(_unavailable(config))))
    if attempt == 1:
        update_env(folder, threads=config.launch.threads or 1)
    enqueue(folder)
    status.update(folder, of_attempt=attempt, host=HOST, boot_id=None)
    start_supervisor(folder, env, command, mode=("--ray", address))


RAY = Launcher(
    name="ray",
    label="Ray",
    summary="A task of a Ray cluster that shares the folder of runs; the target is HOST:PORT of its head.",
    unavailable=_unavailable,
    target="cluster of this machine",
    start=_start,
)
