"""New runs that come from another one: the same once more."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from llf_core.launch.environment import start_facts
from llf_core.runs import create_run, read_meta, update_env
from llf_core.runs.steering import journal, write_replay

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder


def _threads(folder: RunFolder) -> dict[str, Any]:
    """The number of threads of a run: with another one sums differ in their last bits."""
    try:
        threads = json.loads(folder.env.read_bytes()).get("threads")
    except (FileNotFoundError, ValueError):
        return {}
    return {"threads": threads} if isinstance(threads, int) else {}


def replay(folder: RunFolder) -> RunFolder:
    """Makes the folder of a run of the same config and rows, to which the same is done at the same steps.

    Args:
        folder: the run to be repeated.

    Returns:
        The new run's folder, not started yet.

    Raises:
        ConfigError: its config has errors by now.
    """
    from llf_core.config import RunConfig

    loaded = RunConfig.load(folder.config)
    name = f"{read_meta(folder)['name'] or folder.id} again"
    new = create_run(folder.config.read_text(encoding="utf-8"), name, folder.home)
    for own, copy in ((folder.data, new.data), (folder.code, new.code)):
        if own.is_dir():
            shutil.copytree(own, copy)
    write_replay(new, journal(folder))
    update_env(new, **start_facts(loaded) | _threads(folder), parent={"run": folder.id, "step": 0})
    return new
