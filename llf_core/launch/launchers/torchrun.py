"""Several machines by torchrun's rendezvous: each starts its own supervisor for one run, in a folder that all share.

The first machine makes the run. The others have `NODE_RANK` in their environment and join it.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING

from llf_core.launch.environment import gpu_count, packages
from llf_core.launch.launchers.launcher import Launcher, too_few_gpus
from llf_core.launch.local_process import node_rank, rendezvous_of, start_supervisor
from llf_core.runs.config_file import read_config
from llf_core.runs.folder import open_run, run_ids
from llf_core.runs.listing import shown_status
from llf_core.runs.status import BrokenRunError
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llf_core.config.values import ConfigValues
    from llf_core.runs import RunFolder

JOIN_SECONDS = 600.0
"""Maximum seconds to wait for the run of the first machine, as long as torch waits for its rendezvous."""
NEWEST = 20
"""Number of newest runs among which a machine looks for the one to join."""
SAME = ("torch", "transformers", "peft", "accelerate")
"""Packages whose versions must be the same on all machines."""
PORT = 29500


def keys_of_variables(variables: Mapping[str, str]) -> dict[str, object]:
    """Config keys for LLaMA-Factory's variables, such as `NNODES` and `MASTER_ADDR`; they precede the config.

    They count where `USE_RAY` or `FORCE_TORCHRUN` is set or `NNODES` is above 1.
    """
    if _is_on(variables.get("USE_RAY")):
        return {"launch": "ray"}
    nodes = int(variables["NNODES"]) if variables.get("NNODES", "").isdecimal() else 1
    if nodes <= 1 and not _is_on(variables.get("FORCE_TORCHRUN")):
        return {}
    each = variables.get("NPROC_PER_NODE", "")
    keys: dict[str, object] = {"num_processes": int(each) if each.isdecimal() else gpu_count() or 1}
    if nodes > 1:
        host, port = variables.get("MASTER_ADDR", "127.0.0.1"), variables.get("MASTER_PORT", str(PORT))
        keys |= {"launch": "torchrun", "num_nodes": nodes, "launch_target": f"{host}:{port}"}
    return keys


def _is_on(value: str | None) -> bool:
    return value is not None and value.lower() in {"1", "true", "y", "yes"}


def joins(config: Mapping[str, object]) -> bool:
    """Whether this machine joins the run of another one."""
    return config.get("launch") == TORCHRUN.name and node_rank() > 0


def run_to_join(config: ConfigValues, home: Path) -> RunFolder:
    """Wait for the run that the first machine starts with the same rendezvous.

    Raises:
        RuntimeError: there is none after `JOIN_SECONDS`, or the first machine has other versions.
    """
    target = config.launch.launch_target
    until = time.monotonic() + JOIN_SECONDS
    while time.monotonic() < until:
        for name in sorted(run_ids(home), reverse=True)[:NEWEST]:
            folder = open_run(name, home)
            if _starts_at(folder, target):
                _check_versions(folder)
                return folder
        time.sleep(0.5)
    raise RuntimeError(
        f"No run that meets at {target} was started in {home} within {JOIN_SECONDS:.0f} s. Start it on the first "
        "machine (NODE_RANK=0), and let all machines use the same folder LLF_HOME."
    )


def wait_until_begun(folder: RunFolder) -> None:
    """Wait until the first machine has begun the next attempt of a run that this one joins again; see `run_to_join`."""
    until = time.monotonic() + JOIN_SECONDS
    while not _starts_at(folder, str(read_config(folder.config).get("launch_target"))):
        if time.monotonic() > until:
            raise RuntimeError(f"{folder.id} was not resumed on the first machine within {JOIN_SECONDS:.0f} s.")
        time.sleep(0.5)
    _check_versions(folder)


def _starts_at(folder: RunFolder, target: str | None) -> bool:
    try:
        state = shown_status(folder).state
    except (BrokenRunError, OSError):
        return False
    return state in {"created", "starting"} and read_config(folder.config).get("launch_target") == target


def _check_versions(folder: RunFolder) -> None:
    there, here = read_object_or_empty(folder.env).get("packages"), packages()
    if not isinstance(there, dict):
        return
    for name in SAME:
        if there.get(name) != here.get(name):
            raise RuntimeError(
                f"This machine has {name} {here.get(name)}, the first one {there.get(name)}. Expected the same "
                f"version on all: pip install {name}=={there.get(name)}."
            )


def _unavailable(config: ConfigValues) -> str | None:
    if config.launch.launch != TORCHRUN.name:
        return None
    target, nodes = config.launch.launch_target, config.launch.num_nodes
    try:
        host, port = rendezvous_of(str(target))
    except ValueError:
        return f"`launch_target` is {target!r}. Expected HOST:PORT of the first machine, such as 10.0.0.1:{PORT}."
    if node_rank() >= nodes:
        return f"NODE_RANK is {node_rank()} and `num_nodes` is {nodes}. Expected a rank from 0 to {nodes - 1}."
    return too_few_gpus(config) or _why_not(host, port)


def _why_not(host: str, port: int) -> str | None:
    """Why this machine cannot meet the others there: an unknown host, or on the first machine a port in use."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        return f"The host {host} is unknown here. Expected a name or address of the first machine in `launch_target`."
    if node_rank() > 0:
        return None
    with socket.socket(address[0], socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address[4])
        except PermissionError:
            return f"Port {port} needs more rights. Expected one above 1023 in `launch_target`."
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"Port {port} of {host} is in use. Choose another one in `launch_target`."
            return (
                f"{host} is not an address of this machine, which is the first one (NODE_RANK 0). Expected one of its "
                "addresses in `launch_target`."
            )
    return None


def _start(folder: RunFolder, env: Mapping[str, str], command: Sequence[str] | None) -> None:
    start_supervisor(folder, env, command, mode=["--joins"] if node_rank() > 0 else [])


TORCHRUN = Launcher(
    name="torchrun",
    label="Several machines (torchrun)",
    summary="Started once on each machine, with NODE_RANK in its environment; they share the folder of runs.",
    unavailable=_unavailable,
    target="HOST:PORT",
    start=_start,
)
