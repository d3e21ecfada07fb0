"""Sizes and lengths of images, videos and audio from the headers of their files, without decoding them."""

from __future__ import annotations

import functools
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ROTATED = frozenset((5, 6, 7, 8))
"""EXIF orientations of an image that is turned by 90 degrees."""
ORIENTATION = 0x0112
MICROSECONDS = 1_000_000  # of a second: the unit of a container's duration


@dataclass(frozen=True)
class Header:
    """Size in pixels and duration from the header of a file; 0 where a kind has none."""

    width: int = 0
    height: int = 0
    seconds: float = 0.0
    frames: int = 0
    rate: float = 0.0


def read_header(kind: str, path: Path) -> Header | None:
    """Read the header of a medium's file, again only when the file has changed.

    None if the file cannot be read, is no regular file, or the package that reads it is not installed.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):  # a device or named pipe could block forever
        return None
    return _READERS[kind](path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=4096)
def _image(path: Path, changed: int, size: int) -> Header | None:  # noqa: ARG001 - of the cache
    try:
        from PIL import Image
    except ImportError:
        return None
    try:
        with Image.open(path) as image:
            turned = image.format in {"JPEG", "MPO"} and image.getexif().get(ORIENTATION) in ROTATED
            width, height = image.size
            return Header(height, width) if turned else Header(width, height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


@functools.lru_cache(maxsize=4096)
def _video(path: Path, changed: int, size: int) -> Header | None:  # noqa: ARG001 - of the cache
    found = _open(path, "video")
    if found is None:
        return None
    width, height, seconds, frames, rate = found
    return Header(width, height, seconds, frames or max(1, round(seconds * rate)), rate)


@functools.lru_cache(maxsize=4096)
def _audio(path: Path, changed: int, size: int) -> Header | None:  # noqa: ARG001 - of the cache
    found = _open(path, "audio")
    return None if found is None else Header(seconds=found[2])


def _open(path: Path, kind: str) -> tuple[int, int, float, int, float] | None:
    """Width, height, seconds, frames and frames per second of a file's first stream; None if there is none."""
    try:
        import av

        with av.open(str(path), options={"protocol_whitelist": "file"}) as file:  # a list of streams may name hosts
            streams: Any = getattr(file.streams, kind)
            stream: Any = streams[0]
            whole = (file.duration or 0) / MICROSECONDS
            seconds = float(stream.duration * stream.time_base) if stream.duration else whole
            rate = float(getattr(stream, "average_rate", None) or 0)
            size = (int(stream.width), int(stream.height)) if kind == "video" else (0, 0)
            return *size, seconds, int(stream.frames or 0), rate
    except Exception:  # noqa: BLE001 - decoders raise errors of any type for a damaged file
        return None


def reads(kind: str) -> bool:
    """Whether the package that reads the headers of a kind is installed: PyAV for videos and audio."""
    from importlib.util import find_spec

    return kind == "image" or find_spec("av") is not None


_READERS = {"image": _image, "video": _video, "audio": _audio}
