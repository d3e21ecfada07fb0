"""What may stand in the place of a file of a run, or beside the runs, where a stranger made the folder."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.runs import RunFolder

FILES = (
    "status.json", "status.lock", "meta.json", "env.json", "queue.json", "replay.json", "config.yaml", "resolved.yaml",
    "metrics.jsonl", "events.jsonl", "samples.jsonl", "examples.jsonl", "log.txt", "control/1-a.json", "control",
    "checkpoints", "checkpoints/checkpoint-3", "checkpoints/checkpoint-3/complete.json", "output",
    "output/adapter_config.json", "data", "code", "code/mine.py",
)  # fmt: skip
DEEP = "[" * 100_000
PAIRS = zip("abcdefgh", "bcdefghi", strict=True)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{i}: &{i} [{','.join([f'*{j}'] * 9)}]\n" for j, i in PAIRS)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        folder = os.open(path.parent, os.O_RDONLY)  # a socket's own path has at most some 100 bytes
        try:
            one.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(path.name.encode() if path.suffix == ".yaml" else b"{")
        file.truncate(6 << 30)  # sparse: it takes no room


def _foreign(path: Path) -> None:
    path.write_text("{}")
    os.chown(path, 12345, 12345)
    path.chmod(0)


def _link_in(path: Path) -> None:
    (path.parent / f"kept-{path.name}").write_text("{}")
    path.symlink_to(f"kept-{path.name}")


ODD = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link out": lambda path: path.symlink_to("/etc/passwd"),
    "link to a folder": lambda path: path.symlink_to("/etc"),
    "link in": _link_in,
    "loop": lambda path: path.symlink_to(path.name),
    "folder": lambda path: path.mkdir(),
    "huge": _huge,
    "deep": lambda path: path.write_text(DEEP),
    "bomb": lambda path: path.write_text(BOMB),
    "bytes": lambda path: path.write_bytes(b"\0\xff\xfe{" * 1000),
    "digits": lambda path: path.write_text(f'{{"step": {"9" * 5000}, "state": {"9" * 400}}}\n'),
    "empty": lambda path: path.write_text(""),
}
if os.geteuid() == 0:
    ODD["another user's"] = _foreign


def put(folder: RunFolder, name: str, kind: str) -> None:
    """Puts something odd in the place of a file or a folder of a run."""
    path = folder.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    ODD[kind](path)


def run_without_room(command: list[str], output: Path, most: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command that can write `most` bytes into a file, as on a full disk: its standard output is `output`.

    The limit on the size of a file does it, which each machine has: /dev/full is an ordinary file in some containers.
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    with output.open("wb") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=False, preexec_fn=limit)
