"""Limits of images, videos and audio before the model's processor gets them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import sqrt
from typing import TYPE_CHECKING

from llf_core.config.name_checks.model_folder import config_of, folder_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from llf_core.config import RunConfig

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
