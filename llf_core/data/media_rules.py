"""Rules by which processors of transformers count the tokens and patches of a medium; see `media_tokens.toml`.

Sizes are in pixels, width before height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.data.media_files import Header, MediaLimits


FIXED = (
    "max_soft_tokens", "image_seq_length", "image_seq_len", "num_image_tokens", "mm_tokens_per_image",
    "vision_soft_tokens_per_image",
)  # fmt: skip
"""Settings with the number of tokens of an image or tile, for processors that the table does not have."""

MIN_CROP, MOST_CROPS, CROP_RATIO = 256, 4, 1.2
"""Options of Gemma 3's pan and scan, its processor's defaults."""
SAMPLING_RATE = 16_000

HOP = 160
"""Samples between two mel frames, 100 frames a second: the default of Whisper's and Gemma's feature extractors."""

LONGEST_CLIP = 480_000
"""Samples of the longest audio clip of Gemma 4, the default of its feature extractor."""

SPLIT_TILES = {"tile_size": 512, "min_tiles": 2, "max_tiles": 10}
"""Side and numbers of the tiles of an image of LFM2-VL, its processor's defaults."""

WINDOW, WINDOW_TOKENS = 100, 13
"""Mel frames of a window of Qwen3-Omni's encoder, the default of its processor, and the tokens of a whole one."""

OF_ANOTHER_KIND = (TypeError, ValueError, AttributeError, ArithmeticError, LookupError)
"""Errors of a computation with settings of other types than those of transformers' processors."""


class Shown(NamedTuple):
    """Tokens of a medium from its processor.

    Attributes:
        positions: patches that the image encoder sees; 0 for audio.
        text: text that the processor writes around the tokens.
    """

    tokens: int
    positions: int
    text: str


@dataclass(frozen=True)
class MediaSettings:
    """Settings of a model's processor.

    Attributes:
        parts: settings by the names of the table: `processor` (`processor_config.json`), `image`, `video` and `audio`
            (its parts), `model` (`config.json`) and `vision` (its `vision_config`).
    """

    limits: MediaLimits
    parts: Mapping[str, Mapping[str, Any]]

    def each(self, row: Mapping[str, Any]) -> int:
        """Tokens of an image, tile, frame or clip, from the setting that the table names, for the rules of `RULES`."""
        if "each" in row:
            path, default = row["each"]
            part, name = path.split(".")
            return int(self.parts[part].get(name) or default)
        named = (self.parts[part].get(name) for name in FIXED for part in ("processor", "image", "model"))
        return next((int(one) for one in named if one), 0) or self.patches()

    def side(self) -> int:
        """Pixels of a side of the squares that the encoder sees, by which rules count patches; 0 if it is not known."""
        image = self.parts["image"]
        cropped = image.get("crop_size") if image.get("do_center_crop", True) else None
        return _pixels(cropped) or _pixels(self.parts["vision"].get("image_size")) or _pixels(image.get("size")) or 0

    def patches(self) -> int:
        """Patches of a square, each of which is a token unless a setting names another number.

        Raises:
            ValueError: the sizes are unknown.
        """
        patch = _pixels(self.parts["vision"].get("patch_size"))
        if not self.side() or not patch:
            raise ValueError("The size of the encoder's images is not known.")
        return (self.side() // patch) ** 2

    def square_positions(self, parts: int, tokens: int) -> int:
        """Positions of an encoder that sees `parts` squares, each with a class token; `tokens` if unknown."""
        try:
            return (self.patches() + 1) * parts
        except OF_ANOTHER_KIND:
            return tokens

    def limits_of(self, part: str, row: Mapping[str, Any]) -> tuple[int, float, float, int]:
        """Side of a merged patch in pixels, smallest and largest area of a scaled image, and patches per side."""
        own = self.parts[part]
        size = own.get("size") or {}
        if row.get("own_limits"):
            own, size = {**own, "min_pixels": None, "max_pixels": None}, {}
        least = own.get("min_pixels") or size.get("shortest_edge") or row["least"]
        most = own.get("max_pixels") or size.get("longest_edge") or row["most"]
        merge = int(own.get("merge_size") or row["merge"])
        return int(own.get("patch_size") or row["patch"]) * merge, least, most, merge

    def frames(self, header: Header) -> tuple[list[int], float]:
        """Indices of the frames that are taken from a video, and its frames per second (`video_fps` if unknown)."""
        rate = header.rate or self.limits.video_fps
        return self.limits.frame_indices(max(1, header.frames), header.seconds or header.frames / rate), rate


def _whole(row: Mapping[str, object], columns: int = 0, rows: int = 0) -> str:
    whole = str(row.get("written", ""))
    if not columns or not rows or "split" not in row:
        return whole
    between = str(row.get("between", ""))
    one = between.join([str(row.get("tile", whole))] * columns) + str(row.get("row_end", ""))
    return str(row["split"]).replace("{whole}", whole).replace("{parts}", between.join([one] * rows))


def _video_text(row: Mapping[str, object], times: Sequence[tuple[float, float]], length: float) -> str:
    """Text of a video: that of each frame, or group of frames, by the times of its first and last frame in seconds."""
    if "frame" not in row:
        return str(row.get("written", ""))

    def filled(text: str, number: int, first: float, last: float) -> str:
        second = (first + last) / 2
        values = {
            "number": str(number),
            "seconds": f"{second:.1f}",
            "time": f"{int(second // 60):02d}:{int(second % 60):02d}",
            "first": f"{first:.1f}",
            "whole": str(int(first)),
        }
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    frames = str(row.get("join", "")).join(
        filled(str(row["frame"]), number, *both) for number, both in enumerate(times, 1)
    )
    before = str(row.get("before", "")).replace("{frames}", _in_words(len(times)))
    before = before.replace("{length}", str(timedelta(seconds=int(length))))
    return before + frames + str(row.get("after", ""))


def _in_words(number: int) -> str:
    """A text with as many words and signs as a number below 1,000 in words, such as `one hundred and twenty-one`."""
    hundreds, rest = divmod(number, 100)
    word = "number-number" if rest > 20 and rest % 10 else "number"  # noqa: PLR2004 - of English
    if not hundreds:
        return word
    return f"number hundred and {word}" if rest else "number hundred"


def _grid(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:  # noqa: ARG001 - of a rule
    """LLaVA: the patches of a square."""
    patch = _pixels(media.parts["processor"].get("patch_size")) or _pixels(media.parts["vision"]["patch_size"]) or 1
    found = (media.side() // patch) ** 2 + _additional(media)
    return Shown(found, media.square_positions(1, found), "")


def _additional(media: MediaSettings) -> int:
    """Tokens beside the patches: the class token, unless the model leaves it out."""
    own = media.parts["processor"]
    left_out = own.get("vision_feature_select_strategy") == "default"
    return int(own.get("num_additional_image_tokens") or 0) - left_out


def _squares(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:  # noqa: ARG001 - of a rule
    """LLaVA-NeXT: a square of the whole image, and those of a canvas without its padding."""
    own, size = media.parts["processor"], media.limits.image_size(header.width, header.height)
    grids = media.parts["image"].get("image_grid_pinpoints") or media.parts["model"]["image_grid_pinpoints"]
    side = media.side()
    patches = side // (_pixels(own.get("patch_size")) or _pixels(media.parts["vision"]["patch_size"]) or 1)
    wide, high = (one // side for one in square_grid(*size, grids))
    found = unpadded_tokens(*size, patches * wide, patches * high) + patches**2 + _additional(media)
    return Shown(found, media.square_positions(1 + wide * high, found), "")


def _rows(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:  # noqa: ARG001 - of a rule
    """Pixtral: merged patches, and a token at the end of each row."""
    own, size = media.parts["image"], media.limits.image_size(header.width, header.height)
    merge = int(
        media.parts["processor"].get("spatial_merge_size") or media.parts["model"].get("spatial_merge_size") or 1
    )
    side = (_pixels(own.get("patch_size")) or 16) * merge
    most = (own.get("size") or {}).get("longest_edge")
    ratio = max(1.0, max(size) / most) if most else 1.0
    wide, high = (-(-int(one / ratio) // side) for one in size)
    return Shown(high * (wide + 1), high * wide * merge**2, "")


def _fixed(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:  # noqa: ARG001 - of a rule
    """PaliGemma, Gemma 3n: as many tokens for each image."""
    found = media.each(row)
    return Shown(found, media.square_positions(1, found), _whole(row))


def _crops(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """Gemma 3: a whole image, and the crops of long ones with `image_do_pan_and_scan`."""
    size, own = media.limits.image_size(header.width, header.height), media.parts["image"]
    least, most = own.get("pan_and_scan_min_crop_size"), own.get("pan_and_scan_max_num_crops")
    ratio = own.get("pan_and_scan_min_ratio_to_activate") or CROP_RATIO
    crops = crop_grid(*size, least or MIN_CROP, most or MOST_CROPS, ratio)
    grid = crops if media.limits.image_do_pan_and_scan else (0, 0)
    parts = 1 + grid[0] * grid[1]
    found = parts * media.each(row)
    return Shown(found, media.square_positions(parts, found), _whole(row, *grid))


def _tiles(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """Idefics 3 and SmolVLM: the tiles of an image and the whole of it."""
    size, own = media.limits.image_size(header.width, header.height), media.parts["image"]
    longest, tile = int(own["size"]["longest_edge"]), int(own["max_image_size"]["longest_edge"])
    grid = tile_grid(*size, longest, tile) if own.get("do_image_splitting", True) else (0, 0)
    parts = 1 + grid[0] * grid[1]
    found = parts * media.each(row)
    return Shown(found, media.square_positions(parts, found), _whole(row, *grid))


def _canvas(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """InternVL: with `crop_to_patches` the tiles of an image, and the whole of it if there are several."""
    size, own = media.limits.image_size(header.width, header.height), media.parts["image"]
    least, most = int(own.get("min_patches") or 1), int(own.get("max_patches") or 12)
    parts = 1
    if media.limits.crop_to_patches and most > 1:
        tile = own.get("size") or {}
        columns, rows = canvas_grid(*size, (tile["width"], tile["height"]), least, most)
        parts += columns * rows if columns * rows > 1 else 0
    found = parts * media.each(row)
    return Shown(found, media.square_positions(parts, found), _whole(row))


def _split_canvas(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """LFM2-VL: merged patches of the scaled image; of a large one those of its tiles, then of the whole.

    `Lfm2VlImageProcessor.resize_and_split` and `Lfm2VlProcessor._build_image_tokens`.
    """
    own, size = media.parts["image"], media.limits.image_size(header.width, header.height)
    patch, merge = int(own.get("encoder_patch_size") or 16), int(own.get("downsample_factor") or 2)
    tile, fewest, most = (int(own.get(name) or default) for name, default in SPLIT_TILES.items())
    side, limit = patch * merge, int(own.get("max_image_tokens") or 256)
    wide, high = bounded_grid(*size, side, int(own.get("min_image_tokens") or 64), limit)
    found, grid, parts = wide * high, (0, 0), 1
    splits = own.get("do_image_splitting", True) and not fewest == most == 1
    area = math.prod(max(patch, round(one / side) * side) for one in size)
    if splits and area > limit * side**2 * float(own.get("max_pixels_tolerance") or 2.0):
        columns, rows = grid = canvas_grid(*size, (tile, tile), fewest, most)
        thumbnail = own.get("use_thumbnail", True)
        found = columns * rows * math.ceil(tile // patch / merge) ** 2 + (found if thumbnail else 0)
        parts = columns * rows + bool(thumbnail)
        row = row if thumbnail else {**row, "split": str(row["split"]).replace("<thumbnail>", "")}
    longest = max(limit * merge**2, (tile // patch) ** 2 if own.get("do_image_splitting", True) else 0)
    text = _whole(row, *grid) if media.parts["processor"].get("use_image_special_tokens", True) else ""
    return Shown(found, parts * longest, text)


def _pooled(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """Gemma 4: pooled patches of the largest image with at most so many."""
    size = media.limits.image_size(header.width, header.height)
    found, positions = _pooled_of(media, "image", row, size)
    return Shown(found, positions, _whole(row))


def _pooled_of(media: MediaSettings, part: str, row: Mapping[str, object], size: tuple[int, int]) -> tuple[int, int]:
    own = media.parts[part]
    pooled, most = int(own.get("pooling_kernel_size") or 3), media.each(row)
    wide, high = pooled_grid(*size, int(own.get("patch_size") or 16) * pooled, most)
    return wide * high, most * pooled**2  # the encoder gets images of one length, with padding


def _merged(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """Qwen-VL: merged patches of the scaled image."""
    size = media.limits.image_size(header.width, header.height)
    side, least, most, merge = media.limits_of("image", row)
    wide, high = merged_grid(*size, side, least, most)
    return Shown(wide * high, wide * high * merge**2, _whole(row))


def _merged_still(media: MediaSettings, row: Mapping[str, Any], header: Header) -> Shown:
    """GLM-V: as a video of the frames of one patch in time, whose limits are those of all of them."""
    side, least, most, merge = media.limits_of("image", row)
    step = int(media.parts["image"].get("temporal_patch_size") or row["step"])
    size = media.limits.image_size(header.width, header.height)
    wide, high = merged_video_grid(step, size, side, step, (least, most))
    return Shown(wide * high, wide * high * merge**2, _whole(row))


def _merged_frames(media: MediaSettings, row: Mapping[str, Any], header: Header) -> Shown:
    """Qwen2-VL: merged patches of each group of frames, whose limits are those of a frame."""
    taken, _ = media.frames(header)
    side, least, most, merge = media.limits_of("video", row)
    step = int(media.parts["video"].get("temporal_patch_size") or row["step"])
    wide, high = merged_grid(*media.limits.frame_size(header.width, header.height), side, least, most)
    found = -(-len(taken) // step) * wide * high
    return Shown(found, found * merge**2, _whole(row))


def _merged_clip(media: MediaSettings, row: Mapping[str, Any], header: Header) -> Shown:
    """Qwen3-VL, GLM-V: merged patches of each group of frames with its time; the limits are those of all frames."""
    taken, rate = media.frames(header)
    side, least, most, merge = media.limits_of("video", row)
    step = int(media.parts["video"].get("temporal_patch_size") or row["step"])
    size = media.limits.frame_size(header.width, header.height)
    wide, high = merged_video_grid(len(taken), size, side, step, (least, most))
    taken += [taken[-1]] * (-len(taken) % step)
    times = [(taken[place] / rate, taken[place + step - 1] / rate) for place in range(0, len(taken), step)]
    found = len(times) * wide * high
    return Shown(found, found * merge**2, _video_text(row, times, header.seconds))


def _of_frames(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """SmolVLM and InternVL: each frame is an image that is not divided."""
    taken, rate = media.frames(header)
    found = len(taken) * media.each(row)
    text = _video_text(row, [(one / rate, one / rate) for one in taken], header.seconds)
    return Shown(found, media.square_positions(len(taken), found), text)


def _pooled_frames(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """Gemma 4: each frame is an image."""
    taken, rate = media.frames(header)
    size = media.limits.frame_size(header.width, header.height)
    found, positions = _pooled_of(media, "video", row, size)
    text = _video_text(row, [(one / rate, one / rate) for one in taken], header.seconds)
    return Shown(len(taken) * found, len(taken) * positions, text)


def _clip(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:  # noqa: ARG001 - of a rule
    """Gemma 3n: as many tokens for each audio clip."""
    return Shown(media.each(row), 0, _whole(row))


def _samples(media: MediaSettings, header: Header) -> tuple[int, int, int]:
    """Samples of an audio clip at the feature extractor, samples between two mel frames, and samples per second."""
    own = media.parts["audio"]
    rate = int(own.get("sampling_rate") or SAMPLING_RATE)
    found = round(header.seconds * rate)
    if found < 1:
        raise ValueError("The clip is empty.")
    return found, int(own.get("hop_length") or HOP), rate


def _whisper_frames(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """Qwen2-Audio: mel frames of at most `chunk_length` seconds, after a convolution of stride 2 and a mean of two.

    `Qwen2AudioProcessor._process_audio`.
    """
    found, hop, rate = _samples(media, header)
    own = media.parts["audio"]
    most = int(own.get("n_samples") or rate * int(own.get("chunk_length") or 30))
    frames = -(-min(found, most) // hop)
    return Shown(((frames - 1) // 2 + 1 - 2) // 2 + 1, 0, _whole(row))


def _whisper_windows(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """Qwen3-Omni: the mel frames of windows, each after three convolutions of stride 2; no clip is too long.

    `_get_feat_extract_output_lengths` of transformers' `processing_qwen3_omni_moe`.
    """
    found, hop, _ = _samples(media, header)
    window = 2 * int(media.parts["processor"].get("n_window") or 0) or WINDOW
    whole, frames = divmod(-(-found // hop), window)
    for _ in range(3):
        frames = (frames - 1) // 2 + 1
    return Shown(frames + whole * WINDOW_TOKENS, 0, _whole(row))


def _gemma_frames(media: MediaSettings, row: Mapping[str, object], header: Header) -> Shown:
    """Gemma 4: mel frames of at most 30 seconds, after two convolutions of stride 2.

    `Gemma4Processor.replace_audio_token` and `Gemma4AudioFeatureExtractor`.
    """
    found, hop, rate = _samples(media, header)
    window = int(media.parts["audio"].get("frame_length") or rate // 50)
    frames = max(0, (min(found, LONGEST_CLIP) + window // 2 - 1 - window) // hop + 1)
    return Shown(-(-frames // 4), 0, _whole(row))


def _pixels(value: object) -> int | None:
    """Side of a square, which settings name as a number, a list or an object."""
    if isinstance(value, dict):
        value = value.get("height") or value.get("shortest_edge")
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) and value > 0 else None


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


RULES: Mapping[str, Callable[[MediaSettings, Mapping[str, Any], Header], Shown]] = {
    "grid": _grid,
    "squares": _squares,
    "rows": _rows,
    "fixed": _fixed,
    "crops": _crops,
    "tiles": _tiles,
    "canvas": _canvas,
    "split_canvas": _split_canvas,
    "pooled": _pooled,
    "merged": _merged,
    "merged_still": _merged_still,
    "merged_frames": _merged_frames,
    "merged_clip": _merged_clip,
    "frames": _of_frames,
    "pooled_frames": _pooled_frames,
    "clip": _clip,
    "whisper_frames": _whisper_frames,
    "whisper_windows": _whisper_windows,
    "gemma_frames": _gemma_frames,
}
