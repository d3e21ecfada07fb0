"""Another host over OpenSSH: the run's folder is sent there, supervised there, and mirrored here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.launch.launchers.launcher import Launcher
from llf_core.launch.send_run import ssh_problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.runs import RunFolder


def _start(folder: RunFolder, env: Mapping[str, str], command: Sequence[str] | None) -> None:  # noqa: ARG001
    """Refuse: the folder of a run that is sent belongs to its host, see `llf_core.launch.send_run`."""
    raise RuntimeError(f"{folder.id} names another host in `launch: ssh`. Start it by llf.train or llf train.")


SSH = Launcher(
    name="ssh",
    label="Another host (ssh)",
    summary="A host that ssh reaches without asking, and that has the same version of LLF; the run is shown here.",
    unavailable=ssh_problem,
    target="[USER@]HOST[:PORT]",
    start=_start,
)
