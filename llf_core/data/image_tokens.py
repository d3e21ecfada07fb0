"""Number of tokens and patches of an image, from the files of a model's processor, without loading it.

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
"""Tokens that processors write around an image, such as `<|vision_start|>`: 0 for LLaVA to 4 for Gemma 3."""
CROPS = 4
"""Most crops of Gemma 3's pan and scan, its processor's default."""
OF_ANOTHER_KIND = (TypeError, ValueError, AttributeError, ArithmeticError, LookupError)
"""Errors of a computation with settings that have other types than those of transformers' processors."""


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
        around an image, `AROUND` is added, about what a processor writes; images in tiles count as if all tiles were
        used, where their number depends on more than the size.

        Args:
            width: of the file's image, in pixels.
            height: of the file's image, in pixels.

        Returns:
            The number; None if none of the known rules applies to the settings.
        """
        try:
            found = self._count(*self.limits.image_size(width, height))
        except OF_ANOTHER_KIND:
            return None
        return None if found is None else found + AROUND

    def positions(self, width: int, height: int) -> int:
        """Count the patches of an image, whose activations a trained encoder keeps.

        Args:
            width: of the file's image, in pixels.
            height: of the file's image, in pixels.

        Returns:
            The positions of the encoder; as many as tokens in the text where the settings do not tell it, and 0 where
            none of the known rules applies to them.
        """
        try:
            return self._positions(*self.limits.image_size(width, height))
        except OF_ANOTHER_KIND:
            return 0

    def _count(self, width: int, height: int) -> int | None:
        if "merge_size" in self.image:
            return self._merged(width, height)
        if self._vision.get("model_type") == "pixtral":
            high, wide = self._rows(width, height)
            return high * (wide + 1)
        side, fixed = self._grid(), self._fixed()
        each = fixed if fixed is not None else None if side is None else side * side
        return None if each is None else each * self._parts(width, height)

    def _positions(self, width: int, height: int) -> int:
        if "merge_size" in self.image:
            return self._merged(width, height) * int(self.image["merge_size"]) ** 2
        if self._vision.get("model_type") == "pixtral":
            high, wide = self._rows(width, height)
            return high * wide * self._merge() ** 2
        side = self._grid()
        if side is None:
            return (self._count(width, height) or 0) * int(self._vision.get("pooling_kernel_size") or 1) ** 2
        return (side * side + 1) * self._parts(width, height)

    @property
    def _vision(self) -> Mapping[str, Any]:
        vision = self.model.get("vision_config")
        return vision if isinstance(vision, dict) else {}

    def _fixed(self) -> int | None:
        """Tokens of an image or tile as a setting names them.

        LLaVA's processor counts patches instead, and models have the setting at a default that it does not read.
        """
        settings = (self.processor, self.image, self.model)
        if "num_additional_image_tokens" in self.processor or "image_grid_pinpoints" in self.image:
            settings = (self.processor, self.image, {})
        return next((int(one[name]) for name in FIXED for one in settings if one.get(name)), None)

    def _parts(self, width: int, height: int) -> int:
        """Parts of an image that the encoder sees one by one, with the whole image as one of them."""
        if self.image.get("image_grid_pinpoints") or self.model.get("image_grid_pinpoints"):
            return self._squares(width, height)
        if "max_image_size" in self.image:
            return self._tiles(width, height)
        crops = int(self.image.get("max_patches") or 1) + 1 if self.limits.crop_to_patches else 1
        return crops + (CROPS if self.limits.image_do_pan_and_scan else 0)

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

    def _merge(self) -> int:
        return int(self.processor.get("spatial_merge_size") or self.model.get("spatial_merge_size") or 1)

    def _rows(self, width: int, height: int) -> tuple[int, int]:
        """Rows of Pixtral's merged patches, and patches of a row, after which there is a token."""
        side = int(self.image.get("patch_size", 16) if not isinstance(self.image.get("patch_size"), dict) else 16)
        side *= self._merge()
        most = (self.image.get("size") or {}).get("longest_edge")
        scale = min(1.0, most / max(width, height)) if most else 1.0
        return ceil(height * scale / side), ceil(width * scale / side)

    def _grid(self) -> int | None:
        """Patches of a side of an encoder of square images."""
        size, patch = (_side(self._vision.get(name)) for name in ("image_size", "patch_size"))
        if size is None or patch is None:
            return None
        return (_side(self.image.get("crop_size")) or size) // patch

    def _squares(self, width: int, height: int) -> int:
        """Squares that LLaVA-NeXT divides an image into, with the whole image.

        The grid is that of transformers' `select_best_resolution`.
        """
        grids = self.image.get("image_grid_pinpoints") or self.model["image_grid_pinpoints"]
        size = int(_side(self._vision.get("image_size")) or 1 << 30)

        def fit(grid: tuple[int, int]) -> tuple[int, int]:
            scale = min(grid[1] / width, grid[0] / height)
            used = min(int(width * scale) * int(height * scale), width * height)
            return -used, grid[0] * grid[1] - used

        high, wide = min(grids, key=fit)
        return 1 + int(high // size) * int(wide // size)


def _side(value: object) -> int | None:
    """Pixels of the side of a square that settings name as a number, a list or with `height`; None for none."""
    if isinstance(value, dict):
        value = value.get("height")
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) and value > 0 else None


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
