"""Location of runs: comparison of LLF_HOME between kernel and server, and run folders."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core import __version__
from llf_core.runs import RunFolder, home, open_run

if TYPE_CHECKING:
    from llf_core.launch import Run


def home_hash(folder: Path | None = None) -> str:
    """SHA-256 (hex) of the resolved path of LLF_HOME: comparable without revealing the path."""
    return hashlib.sha256(str((folder or home()).resolve()).encode()).hexdigest()


def display_runs_path() -> str:
    """The runs folder for display, the home directory as `~`: `~/.llf/runs`."""
    return display_path(home().resolve() / "runs")


def display_path(path: Path) -> str:
    """A path for display, the home directory as `~`."""
    user = Path.home().resolve()
    return f"~/{path.relative_to(user)}" if path.is_relative_to(user) else str(path)


def run_folder(run: Run | RunFolder | Path | str, home: Path | str | None = None) -> RunFolder:
    """The folder of a run given as a `Run`, id, or path.

    Args:
        run: the run.
        home: `LLF_HOME`. Default: from the environment.

    Raises:
        FileNotFoundError: the run does not exist.
        TypeError: the type is not supported.
    """
    if isinstance(run, RunFolder):
        return run
    inner = getattr(run, "folder", None)
    if inner is not None:
        return inner if isinstance(inner, RunFolder) else RunFolder(Path(inner))
    if not isinstance(run, str | Path):
        raise TypeError(f"{run!r} is not a run. Expected what llf.train returned, a run id, or a run's folder.")
    path = Path(run).expanduser()
    if isinstance(run, Path) or len(path.parts) > 1:
        if not path.is_dir():
            raise FileNotFoundError(f"No run folder {run}. `llf runs list` shows all runs.")
        return RunFolder(path.absolute())
    return open_run(run, home)


def server_mismatches(server: dict[str, Any]) -> list[str]:
    """Sentences about differences between this kernel and a server's answer to `llf/api/version`."""
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
