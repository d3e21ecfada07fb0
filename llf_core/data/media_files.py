"""Opens the files of images, videos and audio, within the limits of a config."""

from __future__ import annotations

import base64
import io
import re
import warnings
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.data.errors import BadExample, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from llf_core.data.formats.conversation import Medium
    from llf_core.data.media_limits import MediaLimits

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
