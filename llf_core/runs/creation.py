"""Creates run folders that become visible only once complete."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from typing import TYPE_CHECKING

from llf_core.redaction import redact
from llf_core.redaction.file_modes import make_private
from llf_core.runs.disk_errors import is_disk_error, start_message
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.folder import LONGEST_ID, RunFolder, blocked_path_message, home_folder
from llf_core.runs.jsonl import append
from llf_core.runs.status import RESERVE_BYTES, first_status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLUG_LENGTH = 60


def create_run(
    config_yaml: str,
    name: str,
    home: Path | str | None = None,
    fill: Callable[[RunFolder], None] | None = None,
) -> RunFolder:
    """Create a run's folder in the state `created`. It becomes visible only once complete.

    Args:
        config_yaml: a valid config as YAML, with defaults; it is not checked here. Secrets in it are replaced, see
            `named` of `redact`.
        name: display name of the run; part of its id. Secrets in it are replaced.
        fill: writes more files before the folder becomes visible. If it fails, nothing is left.

    Returns:
        The folder. Its id is `YYYYMMDD-HHMMSS-<slug>` in local time, with `-2`, `-3` … appended if taken.
    """
    if (said := blocked_path_message(home)) is not None:
        raise NotADirectoryError(said)
    name = redact(name)
    runs = home_folder(home) / "runs"
    now = time.time()
    new = RunFolder(runs / f".new-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        new.control.mkdir(parents=True)
        write_config(new, config_yaml)
        new.reserve.write_bytes(bytes(RESERVE_BYTES))
        replace_file(new.meta, json_bytes({"revision": 1, "name": name, "tags": [], "note": ""}))
        append(new.events, {"v": 1, "time": now, "attempt": 1, "type": "created", "name": name})
        replace_file(new.status, json_bytes(first_status(now)))
        if fill is not None:
            fill(new)
        make_private(new.path)
        return rename_to_free_id(new.path, runs, time.strftime("%Y%m%d-%H%M%S-", time.localtime(now)) + slug(name))
    except BaseException as error:
        shutil.rmtree(new.path, ignore_errors=True)
        if isinstance(error, OSError) and is_disk_error(error):
            raise OSError(error.errno, start_message(runs, error)) from error
        raise


def write_config(folder: RunFolder, config_yaml: str) -> None:
    """Write the config of a new run without secrets; see `named` of `redact`."""
    replace_file(folder.config, redact(config_yaml, named=False).encode())


def rename_to_free_id(new: Path, runs: Path, wanted: str) -> RunFolder:
    """Rename a finished folder to `wanted`, with `-2`, `-3` … appended if that is taken.

    The rename is atomic and fails on a non-empty folder, so two processes never get the same id.
    """
    number = 1
    while True:
        end = "" if number == 1 else f"-{number}"
        target = runs / f"{wanted[: LONGEST_ID - len(end)]}{end}"
        if not target.exists():
            try:
                new.rename(target)
            except OSError:
                if not target.exists():
                    raise
            else:
                return RunFolder(target)
        number += 1


def slug(name: str) -> str:
    """The readable part of a run id: `SmolLM2 / SFT!` becomes `smollm2-sft`; `run` if nothing is left."""
    words = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")
    return re.sub(r"\.{2,}", ".", words)[:SLUG_LENGTH].strip("-._") or "run"
