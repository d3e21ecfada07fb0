"""Tokens of media as a forecast counts them, against the token ids that the Data Worker makes with real processors."""

import json
import tomllib
import wave

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from llf_core.config import RunConfig
from llf_core.data.conversation import Medium
from llf_core.data.media import placeholder_of, process
from llf_core.data.media_files import Header, MediaLimits, read_header
from llf_core.data.media_tokens import FILE, media_tokens, surrounding
from llf_core.data.preparation import prepare
from llf_core.data.text_lengths import lengths_from_text
from llf_core.models import load_processor, load_tokenizer, resolve_model
from tests.core.models.tiny_configs import tiny_config
from tests.core.models.tiny_media import SAVERS
from tests.core.models.tiny_processors import name_processor, tiny_processor

SIZES = [(60, 40), (640, 480), (30, 900)]
NEEDS = {
    "qwen2_vl": "torchvision", "qwen2_5_vl": "torchvision", "qwen3_vl": "torchvision", "gemma4": "torchvision",
    "internvl": "torchvision", "smolvlm": "num2words", "mistral3": "torchvision", "glm4v": "torchvision",
    "glm46v": "torchvision", "lfm2_vl": "torchvision", "qwen2_5_omni_thinker": "torchvision",
    "qwen3_omni_moe_thinker": "torchvision",
}  # fmt: skip
"""Packages that processors need, and LLF does not install."""
OMNI = ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
PLAIN = ("gemma3n", "idefics3", "llava_next", "mistral3", "glm4v", "glm46v", "lfm2_vl", *OMNI)
"""Types whose processor `tiny_processors` makes."""
IMAGES = [kind for kind in SAVERS if kind != "qwen2_audio"] + list(PLAIN)
VIDEOS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "gemma4", "glm4v", "glm46v", *OMNI)
AUDIO = ("qwen2_audio", "gemma4", "gemma3n", *OMNI)
SETTINGS = {
    "gemma3 crops": ({"image_do_pan_and_scan": True}, {}),
    "internvl tiles": ({"crop_to_patches": True}, {}),
    "smolvlm tiles": ({}, {"do_image_splitting": True, "size": {"longest_edge": 128}}),
    "lfm2_vl tiles": ({}, {"max_pixels_tolerance": 1.0}),
    "lfm2_vl tiles without the whole": ({}, {"max_pixels_tolerance": 1.0, "use_thumbnail": False}),
    "qwen2_vl large": ({"image_max_pixels": 10**6}, {"size": {"shortest_edge": 200 * 200, "longest_edge": 400 * 400}}),
}
"""Keys of a config and settings of the image processor, by the type and what they do."""
WORDS = (
    "You", " are", " provided", " the", " following", " series", " of", " three", " four", " six", " nine", " frames",
    " from", " a", " video", "MM", "SS", "Frame", " seconds", "Here", " is", " original", " image", " and", " here",
    " some", " crops", " to", " help", " you", " see", " better",
)  # fmt: skip
"""Words that processors write, each a token of the published tokenizers."""
BORDERS = ("<|begin_of_image|>", "<|end_of_image|>")
"""Tokens that GLM-V's processors write by their text."""
ROWS = {"image": "images", "video": "videos", "audio": "audios"}
ASKED = {"instruction": "What is it?", "output": "A thing."}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`saved(kind)`: folder of a tiny model with its processor, whose tokenizer knows the words it writes."""
    folders = {}

    def folder(kind):
        pytest.importorskip(NEEDS.get(kind, "torch"))
        if kind not in folders:
            made = folders[kind] = tmp_path_factory.mktemp(kind)
            if kind in SAVERS:
                SAVERS[kind](made)
            else:
                config = tiny_config(kind)
                processor = tiny_processor(kind, config)
                config.save_pretrained(made)
                name_processor(kind, made)
                processor.save_pretrained(made)
            if kind == "gemma4":  # as its larger models, with an encoder of audio
                config = json.loads((made / "config.json").read_text())
                (made / "config.json").write_text(json.dumps(config | {"audio_config": {"model_type": "gemma4_audio"}}))
            tokenizer = AutoTokenizer.from_pretrained(made)
            places = [f"row_{one + 1}_col_{two + 1}" for one in range(9) for two in range(9)]
            tokenizer.add_tokens(
                [*WORDS, *BORDERS, *(f"<{one}>" for one in places), *(f"<|img_{one}|>" for one in places)]
            )
            tokenizer.save_pretrained(made)
        return folders[kind]

    return folder


def config_of(model, folder, rows, **keys):
    (folder / "rows.json").write_text(json.dumps(rows))
    return RunConfig.load(
        {
            "model_name_or_path": str(model),
            "dataset": str(folder / "rows.json"),
            "media_dir": str(folder),
            "cutoff_len": 100_000,
            "overwrite_cache": True,
            "resize_vocab": True,
            "train_from_scratch": True,
            "finetuning_type": "full",
        }
        | keys
    )


def real_lengths(config):
    """Number of token ids of each record, as the Data Worker makes them."""
    source = resolve_model(config.model.model_name_or_path, config)
    tokenizer = load_tokenizer(source, config)
    data = prepare(config, tokenizer, processor=load_processor(source, config, tokenizer))
    assert not data.report.dropped
    return [len(one["input_ids"]) for one in sorted(data.train, key=lambda one: one["index"])]


def counted(config, kind, files):
    """Sum of the tokens of files, as the forecast counts them."""
    counter = media_tokens(config)
    return sum(counter.count(kind, read_header(kind, file)).tokens for file in files)


def the_forecast_is_the_length_of_the_data(model, folder, kind, files, groups=None, **keys):
    """What groups of files (none, one, two … of them) add to a text is the number of their real tokens."""
    groups = groups or [files[:count] for count in range(len(files) + 1)]
    config = config_of(model, folder, [ASKED | {ROWS[kind]: [file.name for file in one]} for one in groups], **keys)
    real = real_lengths(config)
    assert [length - real[0] for length in real] == [counted(config, kind, one) for one in groups]
    return config


@pytest.mark.parametrize("kind", IMAGES)
def test_images_take_the_tokens_that_the_processor_writes(kind, saved, tmp_path):
    the_forecast_is_the_length_of_the_data(saved(kind), tmp_path, "image", pictures(tmp_path))


@pytest.mark.parametrize("case", SETTINGS)
def test_images_in_parts_take_the_tokens_that_the_processor_writes(case, saved, tmp_path):
    keys, image = SETTINGS[case]
    model = tmp_path / "model"
    model.mkdir()
    for file in saved(case.split()[0]).iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    path = model / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"] |= image
    path.write_text(json.dumps(settings))
    plain = counted(config_of(saved(case.split()[0]), tmp_path, [ASKED]), "image", pictures(tmp_path))
    config = the_forecast_is_the_length_of_the_data(model, tmp_path, "image", pictures(tmp_path), **keys)
    assert counted(config, "image", pictures(tmp_path)) > plain


def pictures(folder):
    files = [folder / f"{number}.png" for number in range(len(SIZES))]
    for file, size in zip(files, SIZES, strict=True):
        Image.new("RGB", size).save(file)
    return files


CLIPS = [(64, 48, 4, 8), (200, 90, 10, 33), (48, 160, 25, 120)]
"""Width, height, frames per second and frames of videos."""
FEW = {"video_maxlen": 6, "video_fps": 1.5, "video_max_pixels": 64 * 64}


@pytest.mark.parametrize("keys", [{}, FEW], ids=["defaults", "few frames"])
@pytest.mark.parametrize("kind", VIDEOS)
def test_videos_take_the_tokens_that_the_processor_writes(kind, keys, saved, tmp_path):
    pytest.importorskip("av")
    files = clips(tmp_path)
    groups = [[], *([one] for one in files)]
    if kind != "internvl":  # whose processor takes several videos of a text only if they have one length
        groups.append(files)
    the_forecast_is_the_length_of_the_data(saved(kind), tmp_path, "video", files, groups, **keys)


def clips(folder):
    """A video with the number of its frames in its header, and two without."""
    import av

    files = [folder / f"{number}.{'mp4' if number == 1 else 'mkv'}" for number in range(len(CLIPS))]
    for file, (width, height, rate, frames) in zip(files, CLIPS, strict=True):
        with av.open(str(file), "w") as video:
            stream = video.add_stream("mpeg4", rate=rate)
            stream.width, stream.height = width, height
            for number in range(frames):
                frame = np.full((height, width, 3), 2 * number % 256, dtype=np.uint8)
                video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            video.mux(stream.encode(None))
    return files


@pytest.mark.parametrize("kind", AUDIO)
def test_audio_takes_the_tokens_that_the_processor_writes(kind, saved, tmp_path):
    pytest.importorskip("av")
    files = [sound(tmp_path / "0.wav", 16_000, 0.41), sound(tmp_path / "1.wav", 16_000, 0.9)]
    files.append(sound(tmp_path / "2.wav", 8000, 3.7))
    the_forecast_is_the_length_of_the_data(saved(kind), tmp_path, "audio", files)


def sound(path, rate, seconds):
    tone = np.sin(np.arange(round(rate * seconds)) / 9) * 9000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(tone.astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("kind", [*VIDEOS, "llava", "gemma3", "paligemma", "idefics3", "llava_next", "lfm2_vl"])
def test_the_positions_of_the_encoder_are_the_patches_that_the_processor_makes(kind, saved, tmp_path):
    config = config_of(saved(kind), tmp_path, [ASKED])
    source = resolve_model(str(saved(kind)), config)
    processor = load_processor(source, config, load_tokenizer(source, config))
    found = media_tokens(config)
    for medium in ("image", "video") if kind in VIDEOS else ("image",):
        if medium == "video":
            pytest.importorskip("av")
        file = (clips if medium == "video" else pictures)(tmp_path)[1]
        text, given = placeholder_of(processor, medium), [Medium(medium, str(file))]
        made = process(processor, [text], [given], MediaLimits.of(config), return_tensors="pt")
        positions = found.count(medium, read_header(medium, file)).positions
        assert positions == patches(made, found.settings), medium


def patches(made, settings):
    """Patches of a processor's tensors: in rows, or of squares, of which each has one more for the whole of it."""
    (seen,) = (made[name] for name in ("pixel_values_videos", "pixel_values") if name in made)
    if seen.ndim < 4 or seen.shape[-3] != 3:
        return seen.shape[:-1].numel()
    side = seen.shape[-1] // int(np.ravel(settings.parts["vision"]["patch_size"])[0])
    return seen.shape[:-3].numel() * (side**2 + 1)


def test_a_table_row_has_the_types_of_transformers():
    rows = tomllib.loads(FILE.read_text())["processors"]
    assert len(rows) == len({row["name"] for row in rows})
    for row in rows:
        assert {PROCESSOR_MAPPING_NAMES[kind] for kind in row["types"]} == {row["name"]}


def counter(folder, *, config=None, processor=None, image=None, **keys):
    """The counter of a folder with these files."""
    for name, content in {"config": config, "processor_config": processor, "preprocessor_config": image}.items():
        (folder / f"{name}.json").write_text(json.dumps(content or {}))
    return media_tokens(RunConfig.load({"model_name_or_path": str(folder), "dataset": "llf_demo", **keys}))


PUBLISHED = {
    # LLaVA 1.5: (336 / 14)² patches
    "llava": (
        {"model_type": "llava", "vision_config": {"image_size": 336, "patch_size": 14}},
        {
            "processor_class": "LlavaProcessor", "patch_size": 14, "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
        },
        {"crop_size": {"height": 336, "width": 336}},
        (576, 577),
    ),
    # Qwen2.5-VL: 640 x 480 becomes 644 x 476, that is 46 x 34 patches, merged by four
    "qwen2_5_vl": (
        {"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 14}},
        {},
        {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2},
        (391, 1564),
    ),
    # GLM-4.1V: 23 x 17 merged patches too
    "glm4v": ({"model_type": "glm4v", "vision_config": {}}, {}, {}, (391, 1564)),
    # LFM2-VL: 20 x 15 merged patches of 32 are more than 256, and become 18 x 13, with a start and an end
    "lfm2_vl": ({"model_type": "lfm2_vl", "vision_config": {}}, {}, {}, (18 * 13 + 2, 1024)),
    # Gemma 3: 256 tokens, two line breaks before and after, and the begin and end of an image; (896 / 14)² patches
    "gemma3": (
        {"model_type": "gemma3", "vision_config": {"image_size": 896, "patch_size": 14}},
        {"image_seq_length": 256},
        {"size": {"height": 896, "width": 896}},
        (260, 4097),
    ),
    # SmolVLM: 640 x 480 becomes 2048 x 1536, 4 x 3 tiles of 512 and the whole: 13 x (64 + 2) + 1, and a line break in
    # each of the three rows, of which the last is one token with the next
    "smolvlm": (
        {"model_type": "smolvlm", "vision_config": {"image_size": 512, "patch_size": 16}},
        {"image_seq_len": 64},
        {"do_image_splitting": True, "size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
        (13 * 66 + 1 + 3, 13 * 1025),
    ),
    # PaliGemma of 224: (224 / 14)² patches
    "paligemma": (
        {"model_type": "paligemma", "vision_config": {"image_size": 224, "patch_size": 14}},
        {},
        {"image_seq_length": 256, "size": {"height": 224, "width": 224}},
        (256, 257),
    ),
}  # fmt: skip
"""`config.json`, `processor_config.json` and `preprocessor_config.json` of published models, and what an image of
640 x 480 takes, worked out by hand."""


@pytest.mark.parametrize("kind", PUBLISHED)
def test_images_of_published_models(kind, tmp_path):
    *files, expected = PUBLISHED[kind]
    assert counter(tmp_path, config=files[0], processor=files[1], image=files[2]).count("image", Header(640, 480)) == (
        expected
    )


def test_a_minute_of_sound_and_video_of_published_models(tmp_path):
    audio = counter(tmp_path, config={"model_type": "qwen2_audio", "audio_config": {}})
    assert audio.count("audio", Header(seconds=10)) == (250, 0)  # 1000 frames, halved twice
    assert audio.count("audio", Header(seconds=60)) == (750, 0)  # the first 30 seconds
    windows = counter(tmp_path, config={"model_type": "qwen3_omni_moe"}, processor={"audio_config": {}})
    assert windows.count("audio", Header(seconds=10)) == (130, 0)  # 13 of each second
    assert windows.count("audio", Header(seconds=60)) == (780, 0)

    video = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12845056}
    config = {"model_type": "qwen2_5_vl", "vision_config": {}}
    # 120 frames of at most 256 x 256 in pairs: 1280 x 720 becomes 341 x 192, that is 12 x 7 merged patches
    found = counter(tmp_path, config=config, image=video).count("video", Header(1280, 720, 60.0, 1800, 30.0))
    assert found == (60 * 84, 60 * 84 * 4)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% if image %}<|vision_start|><IMG><|vision_end|>{% endif %}", "<|vision_start|><|vision_end|>"),
        ("{%- if image -%}\n    <start><IMG><end>\n  {%- endif %}", "<start><end>"),
        ("{% if image %}\n<IMG>\n    {% endif %}", "\n"),
        ("{{ '<IMG>\\n' }}", "\n"),
        ("Audio {{ number }}: <IMG>\n{% endif %}", ": \n"),
        ("{{ text }}", ""),
    ],
)
def test_what_a_template_writes_around_a_placeholder(template, expected):
    assert surrounding(template, "<IMG>") == expected


def test_an_unknown_processor_is_counted_by_its_settings(tmp_path):
    config = {"model_type": "x", "vision_config": {"image_size": 224, "patch_size": 16}}
    merged = counter(tmp_path, config=config, image={"merge_size": 2, "patch_size": 14, "min_pixels": 1})
    assert merged.processor == ""
    assert merged.count("image", Header(280, 280)) == (100, 400)
    assert counter(tmp_path, config=config).count("image", Header(280, 280)) == (14 * 14, 14 * 14 + 1)
    named = counter(tmp_path, config=config, processor={"image_seq_length": 64})
    assert named.count("image", Header(280, 280)) == (64, 14 * 14 + 1)
    assert not named.takes("video")


def test_limits_come_first(tmp_path):
    image = {"merge_size": 2, "patch_size": 14, "min_pixels": 1, "max_pixels": 10**9}
    config = {"model_type": "qwen2_vl", "vision_config": {}}
    small = counter(tmp_path, config=config, image=image, image_max_pixels=280 * 280)
    assert small.count("image", Header(2800, 2800)) == (100, 400)
    large = counter(tmp_path, config=config, image=image, image_max_pixels=10**9)
    assert large.count("image", Header(2800, 2800)) == (10_000, 40_000)


@pytest.mark.parametrize("image", [{"merge_size": "two"}, {"merge_size": 2, "size": [1]}, {"max_pixels": "x"}])
def test_settings_of_another_kind_are_no_number(image, tmp_path):
    found = counter(tmp_path, config={"model_type": "qwen2_vl", "vision_config": {}}, image=image)
    assert found.count("image", Header(100, 100)) is None


def test_an_image_is_as_large_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert read_header("image", tmp_path / "a.jpg") == Header(40, 60)
    (tmp_path / "b.jpg").write_text("no image")
    assert read_header("image", tmp_path / "b.jpg") is None
    assert read_header("video", tmp_path / "c.mp4") is None


def test_the_lengths_of_examples_include_media(saved, tmp_path):
    shown = [ASKED | {"images": ["0.png"] * count} for count in (0, 1, 3)]
    Image.new("RGB", (90, 50)).save(tmp_path / "0.png")
    found = lengths_from_text(config_of(saved("llava"), tmp_path, shown))
    none, one, three = found.lengths.tolist()
    assert (one - none, three - none) == (4, 12)
    assert "An image counts 4 tokens." in found.basis
    assert found.patches == 3 * (4 + 1)

    placed = [ASKED | {"instruction": "<image>What is it?", "images": ["0.png"]}]
    assert lengths_from_text(config_of(saved("llava"), tmp_path, placed)).lengths.tolist() == [one]


@pytest.mark.parametrize(
    ("model", "column", "reason"),
    [
        ("llava", "videos", "The tokens of videos are not counted: LlavaProcessor is not known to take them."),
        ("no/model", "images", "The tokens of images are not counted: the files of the model are not on this machine."),
        ("gemma3n", "audios", "The tokens of audio clips are not counted: "),
    ],
)
def test_what_is_not_counted_is_said(model, column, reason, saved, tmp_path):
    rows = [ASKED | {column: ["missing.file"]}]
    found = lengths_from_text(config_of(model if "/" in model else saved(model), tmp_path, rows))
    assert reason in found.basis
    assert found.lengths.tolist() == lengths_from_text(config_of(model, tmp_path, [ASKED])).lengths.tolist()


def test_a_model_of_text_reads_no_media(tiny_model_dir, tmp_path):
    found = lengths_from_text(config_of(tiny_model_dir, tmp_path, [ASKED | {"images": ["0.png"]}]))
    assert "mage" not in found.basis
