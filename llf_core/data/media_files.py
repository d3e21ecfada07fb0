"""Opens the files of images, videos and audio, and reads their sizes from their headers, within limits."""

from __future__ import annotations

import base64
import functools
import io
import re
import stat
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain, islice
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.name_checks.model_folder import config_of, folder_of
from llf_core.data.errors import BadExample, DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from llf_core.config import RunConfig
    from llf_core.data.conversation import Medium

INLINE = "data:;base64,"
ADDRESS = re.compile(r" ?<[\w. ]+ object at 0x[0-9a-f]+>")


def open_image(medium: Medium, limits: MediaLimits) -> Image:
    """Open an image in RGB, turned as its EXIF data says, as transformers opens it, and scaled to the limits."""
    import PIL.Image
    import PIL.ImageOps

    with _reading(medium), warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # twice as many pixels are an error
        with PIL.Image.open(_source(medium)) as image:
            opened = (PIL.ImageOps.exif_transpose(image) or image).convert("RGB")
    size = limits.image_size(opened.width, opened.height)
    return opened if size == opened.size else opened.resize(size)


def check_medium(medium: Medium) -> None:
    """Check that a medium is a file and an image has the header of one, without decoding it."""
    import PIL.Image

    try:
        with _reading(medium), warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            source = _source(medium)
            if medium.kind == "image":
                PIL.Image.open(source).close()
            elif isinstance(source, str):
                Path(source).open("rb").close()
    except MemoryError:
        raise BadExample(f"{_named(medium)} does not fit into memory") from None


def open_video(medium: Medium, limits: MediaLimits) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Decode the frames of a video that the limits select, in RGB.

    Returns:
        Frames `[frames, height, width, 3]`, uint8, and the keys of transformers' `VideoMetadata`: `fps` of the file, or
        `video_fps` if the file has none, its `total_num_frames`, `frames_indices`, `duration` in seconds, and `width`
        and `height` of the frames in pixels.
    """
    import numpy as np

    av = _av("videos")
    with _reading(medium), av.open(_source(medium)) as file:
        stream = _first(file.streams.video, medium)
        rate = float(stream.average_rate or 0) or limits.video_fps
        total = stream.frames or sum(1 for _ in file.decode(stream))
        seconds = float(stream.duration * stream.time_base) if stream.duration else total / rate
        wanted = limits.frame_indices(max(1, total), seconds)
        width, height = limits.frame_size(stream.width, stream.height)
        file.seek(0)
        frames = {
            place: frame.to_ndarray(format="rgb24", width=width, height=height)
            for place, frame in enumerate(islice(file.decode(stream), wanted[-1] + 1))
            if place in wanted
        }
    if not frames:
        raise BadExample(f"{_named(medium)} has no frames")
    return np.stack(list(frames.values())), {
        "fps": rate, "total_num_frames": total, "frames_indices": list(frames), "duration": seconds, "height": height,
        "width": width,
    }  # fmt: skip


def open_audio(medium: Medium, rate: int) -> NDArray[np.float32]:
    """Decode audio to one channel, resampled: `[samples]`, float32, full scale at ±1."""
    import numpy as np

    av = _av("audio")
    with _reading(medium), av.open(_source(medium)) as file:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        decoded = chain(file.decode(_first(file.streams.audio, medium)), [None])  # None: what the resampler still holds
        parts = [part.to_ndarray()[0] for frame in decoded for part in resampler.resample(frame)]
    if not sum(map(len, parts)):
        raise BadExample(f"{_named(medium)} has no samples")
    samples: NDArray[np.float32] = np.concatenate(parts)
    return samples


@contextmanager
def _reading(medium: Medium) -> Iterator[None]:
    try:
        yield
    except (BadExample, MemoryError):
        raise
    except FileNotFoundError:
        raise BadExample(f"there is no file {medium.value}") from None
    except Exception as error:  # noqa: BLE001 - decoders raise errors of any type for a damaged or a huge file
        raise BadExample(f"{_named(medium)} cannot be read ({reason(error)})") from None


def reason(error: Exception) -> str:
    """The first line of a library's message, without memory addresses, or the type of an error without one."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ADDRESS.sub("", line).rstrip(".")


def _first(streams: Sequence[Any], medium: Medium) -> Any:
    if not streams:
        raise BadExample(f"{_named(medium)} has no {medium.kind} stream")
    return streams[0]


def _av(what: str) -> Any:
    try:
        import av
    except ImportError:
        raise DataError(f"The data has {what}, and decoding {what} needs PyAV. Run pip install av.") from None
    return av


def _source(medium: Medium) -> io.BytesIO | str:
    if medium.value.startswith(INLINE):
        return io.BytesIO(base64.b64decode(medium.value.removeprefix(INLINE)))
    if Path(medium.value).exists() and not Path(medium.value).is_file():  # a device or named pipe could block forever
        raise BadExample(f"{medium.value} is not a regular file")
    return medium.value


def _named(medium: Medium) -> str:
    return f"its inline {medium.kind}" if medium.value.startswith(INLINE) else f"the {medium.kind} {medium.value}"


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

OPTIONAL_ENCODERS: dict[str, dict[str, tuple[str, ...]]] = {
    "gemma4": {"image": ("vision_config",), "video": ("vision_config",), "audio": ("audio_config",)},
    "gemma4_unified": {"image": ("vision_config",), "video": ("vision_config",), "audio": ("audio_config",)},
    "nemotron_h_omni": {"audio": ("audio_config", "sound_config")},
}
"""Model types with and without encoders of media, whose processors take these nevertheless: by kind, the parts of
`config.json` one of which a model with the encoder has."""

SHORTER = {"image": "image_max_pixels", "video": "video_maxlen"}
"""Keys that lower the number of tokens of each kind of media."""


@dataclass(frozen=True)
class MediaLimits:
    """Settings of the data section that determine what the processor gets; the defaults are LLaMA-Factory's.

    Attributes:
        image_max_pixels: larger images are scaled down to this area.
        image_min_pixels: smaller images are scaled up to this area.
        image_do_pan_and_scan: whether Gemma 3's processor adds crops of long images.
        crop_to_patches: whether InternVL's processor splits images into tiles.
        video_fps: frames per second that are taken from a video.
        audio_sampling_rate: in Hz; None for that of the model's feature extractor.
        not_encoded: kinds of media that the model has no encoder for, although its processor takes them.
    """

    image_max_pixels: int = 768 * 768
    image_min_pixels: int = 32 * 32
    image_do_pan_and_scan: bool = False
    crop_to_patches: bool = False
    video_max_pixels: int = 256 * 256
    video_min_pixels: int = 16 * 16
    video_fps: float = 2.0
    video_maxlen: int = 128
    audio_sampling_rate: int | None = None
    not_encoded: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: RunConfig) -> MediaLimits:
        """Take the limits from a config.

        Which encoders the model lacks is read from its `config.json`, if that is on this machine.
        """
        names = [one.name for one in fields(cls) if one.name != "not_encoded"]
        return cls(**{name: getattr(config.data, name) for name in names}, not_encoded=_not_encoded(config))

    def image_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an image within the limits, with its aspect ratio."""
        return scaled(width, height, self.image_min_pixels, self.image_max_pixels)

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a video's frames within the limits, with their aspect ratio."""
        return scaled(width, height, self.video_min_pixels, self.video_max_pixels)

    def frame_indices(self, total: int, seconds: float) -> list[int]:
        """Indices of the frames that are taken from a video, spread evenly from the first to the last.

        As in LLaMA-Factory (`_get_video_sample_indices`), but rounded down exactly, where its floating-point numbers
        sometimes give the frame before.

        ```
        20 frames of 4 seconds, 2 frames per second  ->  8 of them: 0 2 5 8 10 13 16 19
        ```

        Args:
            total: number of frames of the video, at least 1.
        """
        count = min(total, self.video_maxlen, max(1, int(seconds * self.video_fps)))
        return [place * (total - 1) // max(1, count - 1) for place in range(count)]


def scaled(width: int, height: int, least: int, most: int) -> tuple[int, int]:
    """Scale a size to an area within two limits in pixels, with the same aspect ratio, as LLaMA-Factory does.

    Both sides are rounded down, so an area that was scaled up may be slightly below `least`. With an aspect ratio above
    `most`, it stays above `most`, since no side becomes 0.
    """
    for limit, outside in ((most, width * height > most), (least, width * height < least)):
        if outside:
            factor = sqrt(limit / (width * height))
            width, height = max(1, int(width * factor)), max(1, int(height * factor))
    return width, height


def _not_encoded(config: RunConfig) -> tuple[str, ...]:
    folder = folder_of(config.model.model_name_or_path, config.model.cache_dir)
    settings = {} if folder is None else config_of(folder)
    optional = OPTIONAL_ENCODERS.get(str(settings.get("model_type")), {})
    return tuple(kind for kind, parts in optional.items() if not any(settings.get(part) for part in parts))


DEFAULT_LIMITS = MediaLimits()


def too_long(length: int, cutoff_len: int, kinds: Collection[str]) -> str:
    """Why an example with media is dropped that is longer than `cutoff_len`, and which keys make it fit.

    Args:
        kinds: kinds of its media, at least one.
    """
    keys = [key for kind, key in SHORTER.items() if kind in kinds]
    lower = f" Raise cutoff_len, or lower {' or '.join(keys)}" if keys else " Raise cutoff_len"
    return (
        f"it has {length:,} tokens with its {' and '.join(f'{kind}s' for kind in sorted(kinds))}, more than "
        f"cutoff_len {cutoff_len:,}, and they cannot be truncated.{lower}"
    )
