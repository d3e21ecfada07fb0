"""Makes a run's folder, whole before anyone can see it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from typing import TYPE_CHECKING

from llf_core.redaction import redact
from llf_core.redaction.file_modes import make_private
from llf_core.runs.disk_errors import is_disk_error, no_room
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.folder import RunFolder, home_folder, in_the_way
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
    """Makes a run's folder in the state `created`, whole before anyone can see it.

    Args:
        config_yaml: the config's text, with defaults.
        name: what views call the run; part of its id.
        home: `LLF_HOME` where it is not the environment's.
        fill: puts more into the folder before anyone can see it. Where that fails, nothing is left.

    Returns:
        The folder. Its id is `YYYYMMDD-HHMMSS-<slug>` in local time, with `-2`, `-3` … where that is taken.

    Raises:
        OSError: the folder can't be written.
        NotADirectoryError: a file stands where the folder of runs should; a sentence.
    """
    if (said := in_the_way(home)) is not None:
        raise NotADirectoryError(said)
    name = redact(name)
    runs = home_folder(home) / "runs"
    now = time.time()
    new = RunFolder(runs / f".new-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        new.control.mkdir(parents=True)
        new.config.write_text(redact(config_yaml), encoding="utf-8")
        new.reserve.write_bytes(bytes(RESERVE_BYTES))
        replace_file(new.meta, json_bytes({"revision": 1, "name": name, "tags": [], "note": ""}))
        append(new.events, {"v": 1, "time": now, "attempt": 1, "type": "created", "name": name})
        replace_file(new.status, json_bytes(first_status(now)))
        if fill is not None:
            fill(new)
        make_private(new.path)
        return _settle(new.path, runs, time.strftime("%Y%m%d-%H%M%S-", time.localtime(now)) + slug(name))
    except BaseException as error:
        shutil.rmtree(new.path, ignore_errors=True)
        if isinstance(error, OSError) and is_disk_error(error):
            raise OSError(error.errno, no_room(runs, error)) from error
        raise


def _settle(new: Path, runs: Path, wanted: str) -> RunFolder:
    """Moves a finished folder to the first free id. The rename decides: it fails on a folder with files."""
    number = 1
    while True:
        target = runs / (wanted if number == 1 else f"{wanted}-{number}")
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
    """The part of a run id that people read: `SmolLM2 / SFT!` becomes `smollm2-sft`."""
    words = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")
    return re.sub(r"\.{2,}", ".", words)[:SLUG_LENGTH].strip("-._") or "run"
