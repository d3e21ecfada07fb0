"""Location of runs: run folders, and whether kernel and server have the same LLF_HOME."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core import __version__
from llf_core.config.paths import expanded
from llf_core.remote.address import is_address
from llf_core.remote.open_mirror import open_mirror
from llf_core.runs import RunFolder, home, open_run
from llf_core.runs.trust import allow
from llf_core.untrusted import leads_to_folder, real_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llf_core.launch import Run


def home_hash(folder: Path | None = None) -> str:
    """SHA-256 (hex) of the resolved path of LLF_HOME, which page, server and kernel compare without seeing the path."""
    return hashlib.sha256(os.fsencode(real_path(folder or home()))).hexdigest()


def display_runs_path() -> str:
    """The runs folder for display, such as `~/.llf/runs`."""
    return display_path(real_path(home()) / "runs")


def display_path(path: Path) -> str:
    """A path for display, with `~` for the home directory."""
    try:
        user = Path.home()
    except RuntimeError:  # a user whom the system does not know, as in some containers
        return str(path)
    for one in (user, real_path(user)):  # the home may be a link, and the path with or without it
        if path.is_relative_to(one):
            return str(Path("~") / path.relative_to(one))
    return str(path)


def run_folder(run: Run | RunFolder | Path | str, home: Path | str | None = None) -> RunFolder:
    """The folder of a run: what `llf.train` returned, an id, or a path.

    Args:
        run: the run. `ssh://host/run` is a run of another host, any other string with a separator, and any `Path`, the
            path of a run folder.
        home: `LLF_HOME`, for ids; None for the environment's.

    Raises:
        FileNotFoundError: the run does not exist; for an id the message has the closest one.
        TypeError: the type is not supported.
    """
    if isinstance(run, RunFolder):
        return run
    inner = getattr(run, "folder", None)
    if inner is not None:
        return inner if isinstance(inner, RunFolder) else RunFolder(Path(inner))
    if not isinstance(run, str | Path):
        raise TypeError(f"{run!r} is not a run. Expected what llf.train returned, a run id, or a run's folder.")
    if isinstance(run, str) and is_address(run):
        return open_mirror(run, home)
    path = expanded(run)
    if isinstance(run, Path) or len(path.parts) > 1:
        if not leads_to_folder(path):
            raise FileNotFoundError(f"No run folder {run}. `llf runs list` shows all runs.")
        return RunFolder(path.absolute())
    return open_run(run, home)


def server_mismatches(server: dict[str, Any]) -> list[str]:
    """Sentences on differences of this kernel from the Jupyter server, by its response to `llf/api/version`."""
    problems = []
    if server["llf"] != __version__:
        problems.append(
            f"The kernel has LLF {__version__}, the server {server['llf']}. "
            "Install the same version in both environments and restart the server."
        )
    if server["home"] != home_hash():
        problems.append(
            f"This kernel writes runs to {display_runs_path()}, the panel reads {server['folder']}. "
            "Set LLF_HOME to one folder in both."
        )
    return problems


def allow_code(code: Iterable[Mapping[str, Any]]) -> str:
    """Record in `LLF_HOME` that the user allows code as displayed; returns why that failed, or an empty text.

    Args:
        code: entries as returned by `llf_core.runs.foreign_code.ForeignCode.json`, each with `folder` and `sha256`.
    """
    try:
        for one in code:
            allow(Path(one["folder"]), str(one["sha256"]), home())
    except OSError as error:
        return str(error)
    return ""
