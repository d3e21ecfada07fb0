"""Sizes and tiles of images and frames in processors of transformers, in pixels, width before height."""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ASPECT = 200
"""Largest aspect ratio that `smart_resize` takes."""
LARGEST_SIDE = 4096
"""Longest side of an image of Idefics 3 before it is divided (`MAX_IMAGE_SIZE`)."""


def merged_grid(width: int, height: int, side: int, least: float, most: float) -> tuple[int, int]:
    """Columns and rows of merged patches, each a token, of an image of Qwen-VL and its relatives.

    `smart_resize` of transformers' `image_processing_pil_qwen2_vl`. `least` and `most` are areas in square pixels.

    Raises:
        ValueError: the aspect ratio is above 200, which the processor refuses.
    """
    if max(width, height) / min(width, height) > MOST_ASPECT:
        raise ValueError("The aspect ratio is above 200.")
    wide, high = (round(one / side) for one in (width, height))
    if wide * high * side**2 > most:
        factor = sqrt(height * width / most)
        wide, high = (max(1, floor(one / factor / side)) for one in (width, height))
    elif wide * high * side**2 < least:
        factor = sqrt(least / (height * width))
        wide, high = (ceil(one * factor / side) for one in (width, height))
    return wide, high


def bounded_grid(width: int, height: int, side: int, fewest: int, most: int) -> tuple[int, int]:
    """Columns and rows of merged patches, each a token, of an image of LFM2-VL, which takes any aspect ratio.

    `smart_resize` of transformers' `Lfm2VlImageProcessor`.

    Args:
        most: largest number of merged patches of the scaled image, unless it is one patch wide or high.
    """
    wide, high = (max(1, round(one / side)) for one in (width, height))
    if wide * high > most:
        factor = sqrt(height * width / (most * side**2))
        wide, high = (max(1, floor(one / factor / side)) for one in (width, height))
    elif wide * high < fewest:
        factor = sqrt(fewest * side**2 / (height * width))
        wide, high = (ceil(one * factor / side) for one in (width, height))
    return wide, high


def merged_video_grid(
    frames: int, size: tuple[int, int], side: int, step: int, areas: tuple[float, float]
) -> tuple[int, int]:
    """Columns and rows of merged patches, each a token, of a frame of Qwen3-VL and GLM-V.

    `smart_resize` of transformers' `video_processing_qwen3_vl` and `video_processing_glm4v`.

    Args:
        size: width and height of a frame.
        areas: smallest and largest sum of the areas of all frames, in square pixels.

    Raises:
        ValueError: there are fewer frames than `step`, or the aspect ratio is above 200, which the processor refuses.
    """
    (width, height), (least, most) = size, areas
    if frames < step:
        raise ValueError("There are too few frames.")
    if height < side or width < side:
        scale = max(side / height, side / width)
        width, height = int(width * scale), int(height * scale)
    if max(width, height) / min(width, height) > MOST_ASPECT:
        raise ValueError("The aspect ratio is above 200.")
    wide, high = (round(one / side) for one in (width, height))
    area = round(frames / step) * step * wide * high * side**2
    if area > most:
        factor = sqrt(frames * height * width / most)
        wide, high = (max(1, floor(one / factor / side)) for one in (width, height))
    elif area < least:
        factor = sqrt(least / (frames * height * width))
        wide, high = (ceil(one * factor / side) for one in (width, height))
    return wide, high


def tile_grid(width: int, height: int, longest: int, tile: int) -> tuple[int, int]:
    """Columns and rows of the tiles of an image of Idefics 3 and SmolVLM; (0, 0) for one that is not divided.

    Each tile has as many tokens as a whole image. `get_number_of_image_patches` of `Idefics3ImageProcessorPil`.
    """
    aspect = width / height
    if width >= height:
        width, height = longest, int(longest / aspect)
        height += height % 2
    else:
        width, height = int(longest * aspect), longest
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    if max(width, height) > LARGEST_SIDE:
        aspect = width / height
        if width >= height:
            width, height = LARGEST_SIDE, max(1, int(LARGEST_SIDE / aspect))
        else:
            width, height = max(1, int(LARGEST_SIDE * aspect)), LARGEST_SIDE
    columns, rows = ceil(width / tile), ceil(height / tile)
    return (columns, rows) if columns * rows > 1 else (0, 0)


def canvas_grid(width: int, height: int, tile: tuple[int, int], least: int, most: int) -> tuple[int, int]:
    """Columns and rows of the tiles of an image of InternVL: the grid whose aspect ratio is closest to the image's.

    Each tile has as many tokens as a whole image. `get_optimal_tiled_canvas` of `image_processing_pil_got_ocr2`.
    """
    sides = range(1, most + 1)
    grids = sorted(((w, h) for w in sides for h in sides if least <= w * h <= most), key=lambda one: one[0] * one[1])
    best, chosen = float("inf"), (1, 1)
    for wide, high in grids:
        difference = abs(width / height - wide / high)
        large = width * height > 0.5 * tile[0] * tile[1] * wide * high
        if difference < best or (difference == best and large):
            best, chosen = difference, (wide, high)
    return chosen


def crop_grid(width: int, height: int, least: int, most: int, ratio: float) -> tuple[int, int]:
    """Columns and rows of the crops that Gemma 3's pan and scan adds to an image; (0, 0) for none.

    Each crop has as many tokens as a whole image. `pan_and_scan` of `Gemma3ImageProcessorPil`.
    """
    longer, shorter = max(width, height), min(width, height)
    if longer / shorter < ratio:
        return 0, 0
    count = min(most, max(2, min(longer // least, floor(longer / shorter + 0.5))))
    if min(ceil(longer / count), shorter) < least:
        return 0, 0
    return (count, 1) if width >= height else (1, count)


def square_grid(width: int, height: int, grids: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Width and height of the canvas to which LLaVA-NeXT scales an image, each of whose patches is a token.

    `select_best_resolution` of transformers' `image_processing_utils`.
    """

    def fit(grid: Sequence[int]) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        return -used, grid[0] * grid[1] - used

    high, wide = min(grids, key=fit)
    return wide, high


def unpadded_tokens(width: int, height: int, columns: int, rows: int) -> int:
    """Tokens of the squares of LLaVA-NeXT, without those of padding, and with one at the end of each row.

    `_get_unpadded_features` of transformers' `LlavaNextProcessor`.
    """
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    return columns * rows + rows


def pooled_grid(width: int, height: int, side: int, most: int) -> tuple[int, int]:
    """Columns and rows of the pooled patches, each a token, of an image of Gemma 4.

    `get_aspect_ratio_preserving_size` of transformers' `image_processing_pil_gemma4`.

    Raises:
        ValueError: the scaled image has no patch, which the processor refuses.
    """
    factor = sqrt(most * side**2 / (width * height))
    wide, high = floor(factor * width / side), floor(factor * height / side)
    if not wide and not high:
        raise ValueError("There is no patch.")
    if not high:
        return min(width // height, most), 1
    if not wide:
        return 1, min(height // width, most)
    return wide, high
