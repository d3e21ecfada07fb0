"""A model that sees, trained on pictures: a tiny real LLaVA."""

import base64
import io
import json
import re
import shutil
import struct
import sys
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoModelForSequenceClassification, AutoProcessor

from llf_core.acceleration.patching.causal_head import install_head
from llf_core.config import RunConfig
from llf_core.config.data import IGNORED
from llf_core.data import Collator, DataError, prepare
from llf_core.data.conversation import Medium
from llf_core.data.inspect import Inspection
from llf_core.data.media import UNUSABLE, process
from llf_core.data.media_files import OPTIONAL_ENCODERS, MediaLimits, open_image, open_video
from llf_core.models import ModelError, load_processor, load_tokenizer, resolve_model
from llf_core.runs import RunReader, read_status
from llf_core.stages.sft import SFT
from llf_core.training.session import run_attempt
from tests.tiny import save_tiny_gemma3, save_tiny_llava, tiny_tokenizer

COLORS = ["red", "green", "blue", "white"]
SHOWN = 4  # tokens of a picture


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    save_tiny_llava(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Four files, and rows that name them."""
    for color in COLORS:
        Image.new("RGB", (40, 30), color).save(tmp_path / f"{color}.png")
    rows = [
        {"instruction": "<image>What color is it?", "output": f"It is {color}.", "images": [f"{color}.png"]}
        for color in COLORS
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return rows


def png_header(width, height):
    """The beginning of a PNG file that claims a size."""
    data = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + data
        + struct.pack(">I", zlib.crc32(data))
        + struct.pack(">I", 9)
        + b"IDAT"
    )


@pytest.fixture
def asked(llava, pictures, tmp_path):
    """A config that trains LLaVA on the pictures."""
    return {
        "model_name_or_path": str(llava), "stage": "sft", "finetuning_type": "lora",
        "dataset": str(tmp_path / "rows.json"), "media_dir": str(tmp_path), "cutoff_len": 64,
    }  # fmt: skip


@pytest.fixture
def prepared(asked, llava):
    """`prepared(**changes)`: data, processor and tokenizer."""

    def make(**changes):
        config = RunConfig.load(asked | changes)
        source = resolve_model(config.model.model_name_or_path, config)
        tokenizer = load_tokenizer(source, config)
        processor = load_processor(source, config, tokenizer)
        return prepare(config, tokenizer, processor=processor), processor, tokenizer

    return make


def plainly(llava, text, pictures):
    """Ids by the model's own processor, of the whole conversation at once."""
    processor = AutoProcessor.from_pretrained(llava)
    return processor(text=text, images=pictures, add_special_tokens=False)["input_ids"][0]


def test_ids_are_the_processors_and_labels_the_answers(prepared, llava, tmp_path):
    ready, _, tokenizer = prepared()
    assert ready.report.examples == len(COLORS)
    for color, row in zip(COLORS, ready.train, strict=True):
        text = (
            f"<|im_start|>user\n<image>What color is it?<|im_end|>\n<|im_start|>assistant\nIt is {color}.<|im_end|>\n"
        )
        assert row["input_ids"] == plainly(llava, text, [Image.open(tmp_path / f"{color}.png")])
        assert row["input_ids"].count(tokenizer.convert_tokens_to_ids("<image>")) == SHOWN
        learned = [label for label in row["labels"] if label != IGNORED]
        assert tokenizer.decode(learned) == f"It is {color}.<|im_end|>\n"


def test_tokens_of_a_picture_are_not_predicted(prepared):
    ready, _, tokenizer = prepared(train_on_prompt=True)
    image = tokenizer.convert_tokens_to_ids("<image>")
    for row in ready.train:
        assert row["labels"] == [IGNORED if one == image else one for one in row["input_ids"]]
        assert row["labels"].count(IGNORED) == SHOWN


def test_batches_are_what_the_processor_makes(prepared, llava, tmp_path):
    ready, processor, tokenizer = prepared()
    batch = Collator(tokenizer, processor)([ready.train[0], ready.train[3]])
    own = AutoProcessor.from_pretrained(llava)
    expected = own.image_processor([Image.open(tmp_path / f"{color}.png").convert("RGB") for color in ("red", "white")])
    assert torch.equal(batch["pixel_values"], torch.stack([torch.as_tensor(one) for one in expected["pixel_values"]]))
    for row, example in zip(range(2), (ready.train[0], ready.train[3]), strict=True):
        length = int(batch["attention_mask"][row].sum())
        assert batch["input_ids"][row][:length].tolist() == example["input_ids"]
        assert batch["labels"][row][:length].tolist() == example["labels"]
        assert (batch["labels"][row][length:] == IGNORED).all()
    assert batch["input_ids"].shape[1] % 8 == 0


def test_a_run_trains_the_language_model_and_leaves_what_transformers_loads(asked, make_run, llava, tmp_path):
    folder = make_run(**asked, max_steps=6, learning_rate=1e-2, val_size=1, eval_strategy="steps", eval_steps=3)
    assert run_attempt(folder, 1) == 0, folder.log.read_text() if folder.log.exists() else read_status(folder)
    losses = RunReader(folder).metrics().values("loss")
    assert losses[-1] < losses[0]
    assert len(RunReader(folder).metrics().values("eval_loss")) == 2
    adapter = json.loads((folder.output / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(llava)
    with safe_open(folder.output / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names
    assert not [name for name in names if "vision" in name or "projector" in name]
    assert type(AutoProcessor.from_pretrained(folder.output)).__name__ == "LlavaProcessor"
    assert "AutoModelForImageTextToText" in (folder.output / "README.md").read_text()


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_what_the_model_sees_with_stays_as_it_is(asked, make_run, llava, method):
    folder = make_run(**(asked | {"finetuning_type": method}), max_steps=2, freeze_trainable_layers=1)
    assert run_attempt(folder, 1) == 0
    before, after = (AutoModelForImageTextToText.from_pretrained(path).state_dict() for path in (llava, folder.output))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if "vision" in name or "projector" in name]


def test_the_loss_is_the_models_own(prepared, llava):
    ready, processor, tokenizer = prepared()
    batch = Collator(tokenizer, processor)(list(ready.train))
    model = AutoModelForImageTextToText.from_pretrained(llava).eval()
    expected = model(**batch).loss
    assert install_head(model) is None
    count = (batch["labels"][:, 1:] != IGNORED).sum()
    assert torch.allclose(SFT().loss_sum(model, batch) / count, expected, rtol=1e-5)


def test_messages_in_openais_form_and_several_pictures(prepared, tmp_path, llava):
    messages = [
        {"role": "user", "content": "Compare <image> and <image>."},
        {"role": "assistant", "content": "Red and blue."},
        {"role": "user", "content": "And <image>?"},
        {"role": "assistant", "content": "White."},
    ]
    row = {"messages": messages, "images": ["red.png", "blue.png", "white.png"]}
    (tmp_path / "talk.jsonl").write_text(json.dumps(row) + "\n")
    ready, _, tokenizer = prepared(dataset=str(tmp_path / "talk.jsonl"))
    (example,) = ready.train
    text = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)
    shown = [Image.open(tmp_path / name) for name in row["images"]]
    assert example["input_ids"] == plainly(llava, text, shown)
    learned = tokenizer.decode([label for label in example["labels"] if label != IGNORED])
    assert learned == "Red and blue.<|im_end|>\nWhite.<|im_end|>\n"


def test_named_templates_write_what_the_models_own_writes_for_a_picture(prepared):
    own, named = prepared()[0], prepared(template="chatml")[0]
    assert [row["input_ids"] for row in named.train] == [row["input_ids"] for row in own.train]
    assert [row["labels"] for row in named.train] == [row["labels"] for row in own.train]


def test_pictures_come_before_the_question_where_the_text_names_none_and_may_be_inline(prepared, tmp_path, pictures):
    ready, _, _ = prepared()
    data = io.BytesIO()
    Image.open(tmp_path / "red.png").save(data, "png")
    inline = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    rows = [pictures[0] | {"instruction": "What color is it?", "images": one} for one in ("red.png", [inline])]
    (tmp_path / "other.json").write_text(json.dumps(rows))
    other, processor, tokenizer = prepared(dataset=str(tmp_path / "other.json"))
    assert [row["input_ids"] for row in other.train] == [ready.train[0]["input_ids"]] * 2
    first, second = (Collator(tokenizer, processor)([row])["pixel_values"] for row in other.train)
    assert torch.equal(first, second)


def test_texts_without_pictures_are_trained_beside_them(prepared, tmp_path, pictures):
    rows = [{"instruction": "Hello", "output": "Hi there."}, *pictures[:2]]
    (tmp_path / "mixed.json").write_text(json.dumps(rows))
    ready, processor, tokenizer = prepared(dataset=str(tmp_path / "mixed.json"))
    batch = Collator(tokenizer, processor)(list(ready.train))
    assert batch["pixel_values"].shape[0] == 2
    for row, example in enumerate(ready.train):
        length = int(batch["attention_mask"][row].sum())
        assert batch["input_ids"][row][:length].tolist() == example["input_ids"]
    assert "pixel_values" not in Collator(tokenizer, processor)([ready.train[0]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": ["none.png"]}, "there is no file .*none.png"),
        ({"images": ["rows.json"]}, "rows.json cannot be read"),
        ({"images": ["huge.png"]}, "huge.png cannot be read .Image size .* exceeds limit"),
        ({"images": []}, "has more <image> than the 0"),
        ({"images": ["red.png", "red.png"]}, "more image data than <image> markers"),
        ({"images": ["https://example.org/a.png"]}, "not on this disk, and LLF does not download media"),
        ({"images": [7]}, "its image is a int"),
        ({"images": ["cut.png"]}, "cut.png cannot be read .*truncated"),
        ({"images": ["bomb.png"]}, "bomb.png cannot be read .*exceeds limit of 178956970 pixels"),
        ({"output": "long " * 40}, "with its images, more than cutoff_len 64"),
        ({"instruction": "<video>What?", "images": [], "videos": ["red.png"]}, "chat template|processor"),
    ],
)
def test_a_record_whose_pictures_cannot_be_had_is_dropped_with_the_reason(prepared, tmp_path, pictures, change, reason):
    (tmp_path / "huge.png").write_bytes(png_header(100_000, 100_000))
    (tmp_path / "rows.json").write_text(json.dumps([{**pictures[0], "videos": [], **change}, *pictures[1:]]))
    noise = Image.effect_noise((64, 64), 90)
    noise.save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    ready, _, _ = prepared()
    assert ready.report.examples == 3
    (dropped,) = ready.report.dropped
    assert dropped.index == 0
    assert re.search(reason, dropped.reason), dropped.reason


def test_a_sign_of_a_picture_in_a_text_without_one_is_a_reason(prepared, tmp_path, pictures):
    rows = [{"instruction": "What is <image>?", "output": "A sign."}, {"instruction": "Hello", "output": "Hi."}]
    (tmp_path / "texts.json").write_text(json.dumps(rows))
    ready, _, _ = prepared(dataset=str(tmp_path / "texts.json"))
    assert ready.report.examples == 1
    assert [one.reason for one in ready.report.dropped] == [
        "its text has <image>, which marks image data that it does not have"
    ]


def test_a_picture_that_changed_is_told(prepared, tmp_path):
    ready, processor, tokenizer = prepared()
    (tmp_path / "red.png").unlink()
    with pytest.raises(DataError, match=r"examples 0 cannot be collated: there is no file .*red.png"):
        Collator(tokenizer, processor)([ready.train[0]])


def test_media_without_an_encoder_in_the_model_are_a_reason(prepared, monkeypatch, tmp_path):
    (tmp_path / "gemma").mkdir()
    told = {"model_type": "gemma4", "vision_config": {"hidden_size": 32}, "audio_config": None}
    (tmp_path / "gemma" / "config.json").write_text(json.dumps(told))
    config = RunConfig.load({"model_name_or_path": str(tmp_path / "gemma"), "dataset": str(tmp_path / "rows.json")})
    assert MediaLimits.of(config).not_encoded == ("audio",)
    monkeypatch.setitem(OPTIONAL_ENCODERS, "llava", {"image": ("image_config",)})
    with pytest.raises(DataError, match=r"the model has no encoder for image data: its config\.json describes none"):
        prepared()


def test_media_that_a_processor_cannot_put_in_a_conversation_are_refused(prepared, monkeypatch):
    monkeypatch.setitem(UNUSABLE, ("LlavaProcessor", "image"), "has no token in the place of an image")
    with pytest.raises(
        DataError, match=r"The data has image data, and LlavaProcessor has no token .* such as qwen3_vl"
    ):
        prepared()


def test_a_model_of_texts_refuses_pictures(asked, tiny_model_dir, tiny_tokenizer, pictures):
    config = RunConfig.load(asked | {"model_name_or_path": str(tiny_model_dir)})
    with pytest.raises(DataError, match=r"rows.json has images, videos or audio \(column images\)"):
        prepare(config, tiny_tokenizer)


def test_pictures_are_looked_at(asked, llava):
    config = RunConfig.load(asked)
    source = resolve_model(config.model.model_name_or_path, config)
    tokenizer = load_tokenizer(source, config)
    looked = Inspection.open(config, tokenizer, processor=load_processor(source, config, tokenizer))
    assert looked.overview()["examples"] == 4
    example = looked.example(0)
    tokens = [token for turn in example["turns"] for token in turn["tokens"]]
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert [token for token in tokens if token[1] == image] == [["<image>", image, "prompt", True, SHOWN]]
    assert example["tokens"] == len(tokens) - 1 + SHOWN


def test_texts_of_a_model_that_sees_are_looked_at_turn_by_turn(asked, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps([{"instruction": "Hello", "output": "Hi there."}]))
    config = RunConfig.load(asked | {"dataset": str(tmp_path / "texts.json")})
    source = resolve_model(config.model.model_name_or_path, config)
    tokenizer = load_tokenizer(source, config)
    looked = Inspection.open(config, tokenizer, processor=load_processor(source, config, tokenizer))
    assert [turn["role"] for turn in looked.example(0)["turns"]] == ["user", "assistant"]


@pytest.mark.parametrize("stage", ["dpo", *(pytest.param(one, marks=pytest.mark.long) for one in ("kto", "orpo"))])
def test_preferences_without_pictures_train_a_model_that_sees(asked, tmp_path, make_run, stage):
    loss = {"pref_loss": "orpo"} if stage == "orpo" else {}
    rows = [
        {"instruction": f"What is {n}?", "input": "", "chosen": "A number.", "rejected": "No." * (n + 1)}
        for n in range(4)
    ]
    if stage == "kto":
        rows = [
            {"instruction": f"What is {n}?", "input": "", "output": "A number.", "kto_tag": n % 2 == 0}
            for n in range(4)
        ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    keys = asked | {"stage": "kto" if stage == "kto" else "dpo", "dataset": str(tmp_path / "pairs.json")} | loss
    folder = make_run(**keys, max_steps=1, per_device_train_batch_size=2, learning_rate=1e-3)
    assert run_attempt(folder, 1) == 0, read_status(folder).reason


def test_a_tokenizer_without_the_processors_tokens_is_told(tmp_path, asked):
    save_tiny_gemma3(tmp_path / "gemma3")
    path = tmp_path / "gemma3" / "tokenizer_config.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({name: one for name, one in held.items() if not name.startswith(("boi_", "extra_"))}))
    config = RunConfig.load(asked | {"model_name_or_path": str(tmp_path / "gemma3")})
    source = resolve_model(config.model.model_name_or_path, config)
    with pytest.raises(ModelError, match=r"boi_token.*tokenizer_config\.json lacks a token that it needs"):
        load_processor(source, config, load_tokenizer(source, config))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_pairs_without_pictures_make_a_reward_model_of_a_model_that_sees(tmp_path, make_run, method):
    save_tiny_gemma3(tmp_path / "gemma3")
    rows = [
        {"instruction": f"What is {n}?", "input": "", "chosen": "A number.", "rejected": "No." * (n + 1)}
        for n in range(4)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    folder = make_run(
        model_name_or_path=str(tmp_path / "gemma3"), stage="rm", finetuning_type=method, max_steps=1,
        dataset=str(tmp_path / "pairs.json"), per_device_train_batch_size=2, learning_rate=1e-3,
    )  # fmt: skip
    assert run_attempt(folder, 1) == 0, read_status(folder).reason
    if method == "lora":
        assert "num_labels=1, pad_token_id=" in (folder.output / "README.md").read_text()
    else:
        assert AutoModelForSequenceClassification.from_pretrained(folder.output).config.num_labels == 1


@pytest.mark.parametrize("said", ["message['content'] | trim", "'' + message['content']"], ids=["writes", "raises"])
def test_a_template_of_texts_alone_gets_no_parts(asked, tmp_path, said, llava, pictures):
    shutil.copytree(llava, tmp_path / "texts")
    (tmp_path / "texts" / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{{ " + said + " }}"
        "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "Hello", "output": "Hi there."}]))
    config = RunConfig.load(asked | {"model_name_or_path": str(tmp_path / "texts")})
    source = resolve_model(config.model.model_name_or_path, config)
    tokenizer = load_tokenizer(source, config)
    processor = load_processor(source, config, tokenizer)
    (row,) = prepare(config, tokenizer, processor=processor).train
    assert tokenizer.decode(row["input_ids"]) == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there.<|im_end|>\n"
    )
    (tmp_path / "seen.json").write_text(json.dumps([pictures[0], {"instruction": "Hello", "output": "Hi."}]))
    config = config.replace(dataset=(str(tmp_path / "seen.json"),))
    (dropped,) = prepare(config, tokenizer, processor=processor).report.dropped
    assert dropped.reason == "the model's chat template does not support image"


def test_a_pair_whose_text_has_a_sign_for_pictures_is_dropped(asked, tmp_path):
    rows = [
        {"instruction": "What is <image>?", "input": "", "chosen": "A word.", "rejected": "No."},
        {"instruction": "What is 1?", "input": "", "chosen": "A number.", "rejected": "No."},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    config = RunConfig.load(asked | {"stage": "dpo", "dataset": str(tmp_path / "pairs.json")})
    source = resolve_model(config.model.model_name_or_path, config)
    tokenizer = load_tokenizer(source, config)
    data = prepare(config, tokenizer, processor=load_processor(source, config, tokenizer))
    assert [index for index, *_ in data.report.dropped] == [0]


@pytest.mark.parametrize(
    "error",
    [
        ImportError("Qwen2VLVideoProcessor requires the Torchvision library but it was not found."),
        pytest.param(
            RecursionError("maximum recursion depth exceeded"),  # as of LLaVA-NeXT-Video
            marks=pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed"),
        ),
    ],
    ids=["import", "recursion"],
)
def test_a_processor_that_needs_torchvision_names_the_version_for_this_torch(asked, llava, monkeypatch, error):
    def lacks(*_, **__):
        raise error

    monkeypatch.setattr(AutoProcessor, "from_pretrained", lacks)
    config = RunConfig.load(asked)
    source = resolve_model(config.model.model_name_or_path, config)
    version = f"0.{int(torch.__version__.split('.')[1]) + 15}"
    with pytest.raises(ModelError, match=re.escape(f'Run pip install "torchvision=={version}.*", then')):
        load_processor(source, config, load_tokenizer(source, config))


def test_images_are_turned_and_scaled_before_the_processor_gets_them(tmp_path):
    shown = Image.new("RGB", (300, 100), "red")
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    shown.save(tmp_path / "a.jpg", exif=turned)
    medium = Medium("image", str(tmp_path / "a.jpg"))
    assert open_image(medium, MediaLimits()).size == (100, 300)
    assert open_image(medium, MediaLimits(image_max_pixels=7500)).size == (50, 150)
    assert open_image(medium, MediaLimits(image_min_pixels=120_000)).size == (200, 600)


def test_frames_are_spread_evenly():
    limits = MediaLimits(video_fps=2.0, video_maxlen=8)
    assert limits.frame_indices(20, 4.0) == np.linspace(0, 19, 8).astype(int).tolist()
    assert limits.frame_indices(1000, 100.0) == np.linspace(0, 999, 8).astype(int).tolist()
    assert limits.frame_indices(3, 100.0) == [0, 1, 2]
    assert limits.frame_indices(9, 0.1) == [0]


def test_an_option_that_the_image_processor_lacks_is_refused(prepared):
    with pytest.raises(DataError, match=r"crop_to_patches is true, and CLIPImageProcessor\w* has no such option"):
        prepared(crop_to_patches=True)


def test_a_video_without_its_decoder_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"The data has videos, .*Run pip install av"):
        open_video(Medium("video", str(tmp_path / "a.mp4")), MediaLimits())


def test_chameleons_processor_adds_no_separator_to_a_text_or_a_part_of_it():
    from transformers import ChameleonImageProcessorPil, ChameleonProcessor

    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"sep_token": "<sep>"})
    processor = ChameleonProcessor(ChameleonImageProcessorPil(), tokenizer, image_seq_length=4)
    made = process(processor, ["What is it?"], [[]], MediaLimits())
    assert list(made["input_ids"][0]) == tokenizer("What is it?", add_special_tokens=False)["input_ids"]
