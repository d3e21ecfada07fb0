from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.cli.errors import in_a_sentence

if TYPE_CHECKING:
    from llf_core.launch import Run


def attach_run(run_id: str) -> Run:
    """Open a run by any name that `llf_core.runs.folder.find_run` knows, or by its address `ssh://host/run`."""
    from llf_core.launch import attach
    from llf_core.remote.address import is_address
    from llf_core.runs.folder import find_run

    with in_a_sentence():
        return attach(run_id if is_address(run_id) else find_run(run_id))
