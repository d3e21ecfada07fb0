"""The run folder: its files, and the classes that write and read them. Imports neither torch nor pandas."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llf_core import NO_WINDOWS
from llf_core.lazy_exports import lazy_exports

if sys.platform == "win32":
    raise ImportError(NO_WINDOWS)

if TYPE_CHECKING:
    from llf_core.runs import status
    from llf_core.runs.bin import (
        DeletedRun,
        RemovedItems,
        clean,
        delete_run,
        deleted_runs,
        find_cleanable,
        folder_bytes,
        remove_from_bin,
        restore_run,
    )
    from llf_core.runs.checkpoints import Checkpoints
    from llf_core.runs.config_file import read_meta, update_env, update_meta
    from llf_core.runs.control import Inbox, Request, kill_run, send_request
    from llf_core.runs.creation import create_run
    from llf_core.runs.curves import decimate
    from llf_core.runs.folder import RunFolder, home, open_run
    from llf_core.runs.listing import Page, Row, free_bytes
    from llf_core.runs.metric_columns import Columns
    from llf_core.runs.reader import RunReader
    from llf_core.runs.run_index import active_runs, list_runs
    from llf_core.runs.states import FINAL
    from llf_core.runs.status import Status, read_status
    from llf_core.runs.writer import RunWriter

# Imported on first use: each process needs only a few modules, and trainer and supervisor start without numpy.
_LAZY = {
    "FINAL": ".states",
    "Checkpoints": ".checkpoints",
    "Inbox": ".control",
    "Request": ".control",
    "RunFolder": ".folder",
    "RunWriter": ".writer",
    "Status": ".status",
    "home": ".folder",
    "open_run": ".folder",
    "read_meta": ".config_file",
    "read_status": ".status",
    "send_request": ".control",
    "update_env": ".config_file",
    "update_meta": ".config_file",
    "DeletedRun": ".bin",
    "Columns": ".metric_columns",
    "RemovedItems": ".bin",
    "Page": ".listing",
    "Row": ".listing",
    "RunReader": ".reader",
    "active_runs": ".run_index",
    "deleted_runs": ".bin",
    "clean": ".bin",
    "find_cleanable": ".bin",
    "create_run": ".creation",
    "decimate": ".curves",
    "delete_run": ".bin",
    "folder_bytes": ".bin",
    "free_bytes": ".listing",
    "kill_run": ".control",
    "list_runs": ".run_index",
    "remove_from_bin": ".bin",
    "restore_run": ".bin",
}

__all__ = [
    "FINAL",
    "Checkpoints",
    "Columns",
    "DeletedRun",
    "Inbox",
    "Page",
    "RemovedItems",
    "Request",
    "Row",
    "RunFolder",
    "RunReader",
    "RunWriter",
    "Status",
    "active_runs",
    "clean",
    "create_run",
    "decimate",
    "delete_run",
    "deleted_runs",
    "find_cleanable",
    "folder_bytes",
    "free_bytes",
    "home",
    "kill_run",
    "list_runs",
    "open_run",
    "read_meta",
    "read_status",
    "remove_from_bin",
    "restore_run",
    "send_request",
    "status",
    "update_env",
    "update_meta",
]

__getattr__ = lazy_exports(__name__, _LAZY)
