"""Number of tokens of an image, from the files of a model's processor, without loading it.

A forecast needs it while a form is filled in. The rules are those of transformers' processors, by the settings that
they have, not by the names of models.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil, floor, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.name_checks.model_folder import config_of, folder_of
from llf_core.data.media_limits import MediaLimits
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import RunConfig

FIXED = (
    "max_soft_tokens", "image_seq_length", "image_seq_len", "num_image_tokens", "mm_tokens_per_image",
    "vision_soft_tokens_per_image",
)  # fmt: skip
"""Settings with the number of tokens of an image or tile."""
AROUND = 3
"""Tokens that processors write around an image or tile, such as `<|vision_start|>`, at most."""
CROPS = 4
"""Most crops of Gemma 3's pan and scan, its processor's default."""


@dataclass(frozen=True)
class ImageTokens:
    """Counts the tokens of an image.

    Attributes:
        limits: sizes to which images are scaled before the processor gets them.
        model: `config.json` of the model.
        processor: `processor_config.json`.
        image: settings of the image processor.
    """

    limits: MediaLimits
    model: Mapping[str, Any]
    processor: Mapping[str, Any]
    image: Mapping[str, Any]

    def count(self, width: int, height: int) -> int | None:
        """Estimate the tokens of an image in the text, by the rules of transformers' processors.

        For example, a Qwen-VL image has one token for each `merge_size`² patches after `smart_resize`. For the tokens
        around an image, `AROUND` is added, the most that a processor writes; images in tiles count as if all tiles were
        used, where their number depends on more than the size.

        Args:
            width: of the file's image, in pixels.
            height: of the file's image, in pixels.

        Returns:
            The number; None if none of the known rules applies to the settings.
        """
        try:
            found = self._count(*self.limits.image_size(width, height))
        except (TypeError, ValueError, ZeroDivisionError, OverflowError, KeyError):  # settings of another kind
            return None
        return None if found is None else found + AROUND

    def _count(self, width: int, height: int) -> int | None:
        vision = self.model.get("vision_config") or {}
        fixed = next((int(one[name]) for name in FIXED for one in self._settings() if one.get(name)), None)
        if "merge_size" in self.image:
            return self._merged(width, height)
        if "max_image_size" in self.image and fixed is not None:
            return fixed * self._tiles(width, height)
        if fixed is not None:
            crops = int(self.image.get("max_patches") or 1) + 1 if self.limits.crop_to_patches else 1
            return fixed * (crops + (CROPS if self.limits.image_do_pan_and_scan else 0))
        if vision.get("model_type") == "pixtral":
            return self._rows(width, height)
        return self._grid(vision)

    def _settings(self) -> tuple[Mapping[str, Any], ...]:
        return self.processor, self.image, self.model

    def _merged(self, width: int, height: int) -> int:
        """Patches of Qwen-VL and its relatives (`smart_resize`), of which `merge_size`² are merged."""
        size = self.image.get("size") or {}
        least = self.image.get("min_pixels") or size.get("shortest_edge") or 56 * 56
        most = self.image.get("max_pixels") or size.get("longest_edge") or 28 * 28 * 1280
        side = int(self.image.get("patch_size") or 14) * int(self.image["merge_size"])
        high, wide = (max(side, round(one / side) * side) for one in (height, width))
        if high * wide > most:
            factor = sqrt(height * width / most)
            high, wide = (max(side, floor(one / factor / side) * side) for one in (height, width))
        elif high * wide < least:
            factor = sqrt(least / (height * width))
            high, wide = (ceil(one * factor / side) * side for one in (height, width))
        return high * wide // side**2

    def _tiles(self, width: int, height: int) -> int:
        """Tiles of Idefics 3 and SmolVLM, with the whole image as the last one."""
        if not self.image.get("do_image_splitting", True):
            return 1
        largest, tile = int(self.image["size"]["longest_edge"]), int(self.image["max_image_size"]["longest_edge"])
        scale = largest / max(width, height)
        rows, columns = (ceil(one * scale / tile) for one in (height, width))
        return rows * columns + 1 if rows * columns > 1 else 1

    def _rows(self, width: int, height: int) -> int:
        """Patches of Pixtral, with a token after each row."""
        side = int(self.image.get("patch_size", 16) if not isinstance(self.image.get("patch_size"), dict) else 16)
        side *= int(self.processor.get("spatial_merge_size") or self.model.get("spatial_merge_size") or 1)
        most = (self.image.get("size") or {}).get("longest_edge")
        scale = min(1.0, most / max(width, height)) if most else 1.0
        return ceil(height * scale / side) * (ceil(width * scale / side) + 1)

    def _grid(self, vision: Mapping[str, Any]) -> int | None:
        """Patches of an encoder of square images, once for each tile of LLaVA-NeXT and for the whole image."""
        size, patch = vision.get("image_size"), vision.get("patch_size")
        if not isinstance(size, int) or not isinstance(patch, int):
            return None
        pinpoints = self.model.get("image_grid_pinpoints") or [[0, 0]]
        tiles = 1 + max(high // size * (wide // size) for high, wide in pinpoints)
        return int((size // patch) ** 2 * tiles)


def image_tokens(config: RunConfig) -> ImageTokens | None:
    """Read the settings of a config's model that determine the number of tokens of an image, for a forecast.

    Args:
        config: names the model and the limits of images.

    Returns:
        The counter; None for a model that takes no images, or that is not on this machine.

    Raises:
        OSError: too many files are open.
    """
    folder = folder_of(config.model.model_name_or_path, config.model.cache_dir)
    model = {} if folder is None else config_of(folder)
    if folder is None or not isinstance(model.get("vision_config"), dict):
        return None
    names = ("processor_config.json", "preprocessor_config.json")
    processor, older = (read_object_or_empty(Path(os.path.realpath(folder / name))) for name in names)  # may be links
    own = processor.get("image_processor")
    return ImageTokens(MediaLimits.of(config), model, processor, older | (own if isinstance(own, dict) else {}))
