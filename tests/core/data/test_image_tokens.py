"""Tokens of an image by the settings of its processor, against what transformers' processors make of images."""

import json

import numpy as np
import pytest
from PIL import Image

from llf_core.config import RunConfig
from llf_core.data.image_tokens import AROUND, image_tokens
from llf_core.data.preparation import prepare
from llf_core.data.text_lengths import lengths_from_text
from llf_core.models import load_processor, load_tokenizer, resolve_model
from tests.tiny import save_tiny_llava

SIZES = [(60, 40), (640, 480), (30, 900), (1200, 800)]


def counter(folder, image=None, *, model=None, **keys):
    """The counter of a folder with these settings of an image processor."""
    if image is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": "x", "vision_config": {}} | (model or {})))
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": image, "image_seq_len": 64}))
    return image_tokens(RunConfig.load({"model_name_or_path": str(folder), "dataset": "llf_demo", **keys}))


@pytest.mark.parametrize("size", SIZES)
def test_merged_patches_are_those_of_qwen(tmp_path, size):
    from transformers import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 400})
    found = counter(tmp_path, json.loads(processor.to_json_string()), image_max_pixels=10**7, image_min_pixels=1)
    grid = processor(Image.new("RGB", size), return_tensors="np")["image_grid_thw"]
    assert found.count(*size) == int(np.prod(grid)) // 4 + AROUND


@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_those_of_smolvlm(tmp_path, size):
    from transformers import SmolVLMImageProcessorPil

    sizes = {"size": {"longest_edge": 1024}, "max_image_size": {"longest_edge": 512}}
    processor = SmolVLMImageProcessorPil(**sizes, do_image_splitting=True)
    found = counter(tmp_path, json.loads(processor.to_json_string()), image_max_pixels=10**7, image_min_pixels=1)
    tiles = processor([[Image.new("RGB", size)]], return_tensors="np")["pixel_values"].shape[1]
    assert found.count(*size) == 64 * tiles + AROUND


@pytest.mark.parametrize("size", SIZES)
def test_llava_next_divides_an_image_as_transformers_does(tmp_path, size):
    from transformers import LlavaNextImageProcessorPil

    grids = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, image_grid_pinpoints=grids
    )
    model = {"vision_config": {"image_size": 336, "patch_size": 14}, "image_seq_length": 576}
    settings = json.loads(processor.to_json_string())
    counter(tmp_path, settings, model=model)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings, "patch_size": 14}))
    found = counter(tmp_path, image_max_pixels=10**7, image_min_pixels=1)
    parts = processor(Image.new("RGB", size), return_tensors="np")["pixel_values"].shape[1]
    assert (found.count(*size), found.positions(*size)) == (576 * parts + AROUND, 577 * parts)


@pytest.mark.parametrize("additional", [{"num_additional_image_tokens": 1}, {}])
def test_the_processor_of_llava_counts_patches_and_older_ones_read_a_number(tmp_path, additional):
    model = {"vision_config": {"image_size": 224, "patch_size": 16}, "image_seq_length": 576}
    counter(tmp_path, {}, model=model)
    settings = {"image_processor": {"crop_size": {"height": 224, "width": 224}}, "patch_size": 16} | additional
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    found = counter(tmp_path)
    assert found.count(640, 480) == (14 * 14 if additional else 576) + AROUND
    assert found.positions(640, 480) == 14 * 14 + 1


def test_the_positions_of_an_encoder_are_its_patches_before_they_are_merged(tmp_path):
    merged = counter(tmp_path, {"merge_size": 2, "patch_size": 14, "min_pixels": 1, "max_pixels": 10**9})
    assert merged.positions(280, 280) == 20 * 20
    pooled = {"vision_config": {"image_size": 896, "patch_size": 14}, "mm_tokens_per_image": 256}
    assert counter(tmp_path, {}, model=pooled).positions(640, 480) == 64 * 64 + 1
    assert counter(tmp_path, {"merge_size": "two"}).positions(100, 100) == 0


def test_limits_come_first(tmp_path):
    image = {"merge_size": 2, "patch_size": 14, "min_pixels": 1, "max_pixels": 10**9}
    assert counter(tmp_path, image, image_max_pixels=280 * 280).count(2800, 2800) == 100 + AROUND
    assert counter(tmp_path, image, image_max_pixels=10**9).count(2800, 2800) == 10_000 + AROUND


def test_what_no_rule_tells_is_none(tmp_path):
    assert counter(tmp_path, {"merge_size": "two"}).count(100, 100) is None
    assert counter(tmp_path, {"merge_size": 2, "patch_size": 14, "size": [1]}).count(100, 100) is None
    (tmp_path / "processor_config.json").write_text("{}")
    assert counter(tmp_path).count(100, 100) is None
    assert counter(tmp_path, {}, model={"vision_config": None}) is None


def test_the_lengths_of_examples_include_images(tmp_path):
    save_tiny_llava(tmp_path)
    Image.new("RGB", (90, 50)).save(tmp_path / "a.png")
    text = {"instruction": "What is it?", "output": "A picture."}
    shown = [text | {"images": ["a.png"] * count} for count in (0, 1, 3)]
    (tmp_path / "rows.json").write_text(json.dumps(shown))
    config = RunConfig.load(
        {
            "model_name_or_path": str(tmp_path),
            "dataset": str(tmp_path / "rows.json"),
            "media_dir": str(tmp_path),
        }
    )
    source = resolve_model(str(tmp_path), config)
    tokenizer = load_tokenizer(source, config)
    data = prepare(config, tokenizer, processor=load_processor(source, config, tokenizer))
    exact = sorted(len(one["input_ids"]) for one in data.train)
    found = lengths_from_text(config)
    none, one, three = found.lengths.tolist()
    assert (one - none, three - none) == (4 + AROUND, 3 * (4 + AROUND))
    assert (exact[1] - exact[0], exact[2] - exact[0]) == (4, 12)
    assert "An image counts 7 tokens." in found.basis
    assert found.patches == 3 * (4 + 1)
