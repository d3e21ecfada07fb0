"""Starts a run on another host: sends its folder by sftp and starts it there."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from llf_core.redaction.file_modes import make_folder
from llf_core.remote.address import parse_address
from llf_core.remote.open_mirror import open_mirror
from llf_core.remote.ssh import RemoteError, ask, sftp
from llf_core.runs.creation import write_config
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llf_core.config import RunConfig
    from llf_core.config.values import ConfigValues
    from llf_core.runs import RunFolder

START_SENT = "llf_core.launch.start_sent"
START_SECONDS = 180.0  # for the host to check the config and start the supervisor; chosen by hand


def is_sent(config: ConfigValues) -> bool:
    """Whether a run of this config is started on another host."""
    return config.launch.launch == "ssh"


def ssh_problem(config: ConfigValues) -> str | None:
    """Why a run cannot be started on the host of a config; None if it can."""
    if shutil.which("ssh") is None:
        return "ssh is not on this machine. Install an OpenSSH client."
    if not is_sent(config):
        return None
    target = config.launch.launch_target
    if target is None:
        return "`launch: ssh` needs a host in `launch_target`, such as box or me@box:2222."
    try:
        host, _ = parse_address(f"ssh://{target}")
        lacks = ask(host, {"do": "ready"}, module=START_SENT)["lacks"]
    except (RemoteError, ValueError) as error:
        return str(error)
    names = [str(name) for name in lacks]
    return f"{host} lacks {', '.join(names)}. Run there: pip install {' '.join(names)}" if names else None


def config_there(config: RunConfig) -> RunConfig:
    """The config as the host stores it, with `launch: local`; any other config unchanged."""
    return config.replace(launch="local", launch_target=None) if is_sent(config) else config


@contextmanager
def place_of_folder(config: RunConfig, root: Path) -> Iterator[Path]:
    """The `LLF_HOME` in which a new run's folder is made; a temporary folder for a run that is sent."""
    if not is_sent(config):
        yield root
        return
    make_folder(root / "remote")
    with TemporaryDirectory(prefix=".sent-", dir=root / "remote") as place:
        yield Path(place)


def add_data(new: RunFolder, config: RunConfig) -> None:
    """Copy the local data files that a config names into the folder of a run that is sent."""
    changes: dict[str, object] = {}
    for key in ("dataset", "eval_dataset"):
        names = [str(name) for name in config.get(key) or ()]
        if not any(leads_to_file(Path(name)) for name in names):
            continue
        new.data.mkdir(exist_ok=True)
        for number, name in enumerate(names):
            if leads_to_file(Path(name)):
                inside = new.data / f"{key}-{number}-{Path(name).name}"
                shutil.copyfile(name, inside)
                names[number] = f"data/{inside.name}"
        changes[key] = names
    if changes:
        # relative to config.yaml, in the folder that goes to the host
        write_config(new, yaml.safe_dump(config.flat(defaults=True) | changes, sort_keys=False, allow_unicode=True))


def send_run(
    folder: RunFolder, target: str, root: Path, env: Mapping[str, str], command: Sequence[str] | None
) -> RunFolder:
    """Send a new run's folder to a host, start the run there, and mirror it here.

    Args:
        target: the host, see `launch_target`.
        root: `LLF_HOME` of this machine.
        env: additional environment variables of the run, which go through ssh's stdin and are not stored.
    """
    host, _ = parse_address(f"ssh://{target}")
    there = str(ask(host, {"do": "receive"}, module=START_SENT)["folder"])
    sftp(host, [("put", "-r", str(folder.path), f"{there}/run")])
    request = {"do": "start", "folder": there, "wanted": folder.id, "env": dict(env), "command": command}
    run = ask(host, request, module=START_SENT, timeout=START_SECONDS)["run"]
    return open_mirror(f"ssh://{host}/{run}", root)


def resume_there(
    folder: RunFolder,
    target: str,
    env: Mapping[str, str] | None,
    command: Sequence[str] | None,
    num_processes: int | None,
) -> None:
    """Resume a mirrored run on its host, and mirror it again."""
    host, _ = parse_address(f"ssh://{target}")
    request = {
        "do": "resume",
        "run": folder.id,
        "env": dict(env or {}),
        "command": None if command is None else list(command),
        "num_processes": num_processes,
    }
    ask(host, request, module=START_SENT, timeout=START_SECONDS)
    open_mirror(f"ssh://{host}/{folder.id}", folder.home.parent.parent)
