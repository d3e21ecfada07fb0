"""Tiny models of the multimodal families, trained on media: tokens, losses and results are those of transformers."""

import json
import wave
from itertools import product
from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForMultimodalLM, AutoProcessor

from llf_core.config import RunConfig
from llf_core.config.data import IGNORED
from llf_core.data import Collator, prepare
from llf_core.data.text_lengths import lengths_from_text
from llf_core.estimate import Forecaster, find_devices
from llf_core.estimate.example_lengths import of_lengths
from llf_core.estimate.memory_forecast import PROCESS_BYTES
from llf_core.models import device, load_processor, load_tokenizer, resolve_model
from llf_core.runs import RunReader, read_status
from llf_core.runs.config_file import run_config
from llf_core.training.session import run_attempt
from tests.core.models.tiny_media import SAVERS

LIMIT = 1e-4
NEEDS = {
    "qwen2_vl": "torchvision", "qwen2_5_vl": "torchvision", "qwen3_vl": "torchvision", "gemma4": "torchvision",
    "internvl": "torchvision", "smolvlm": "num2words",
}  # fmt: skip
"""Packages that processors need, and LLF does not install."""
SHORT = ("llava", "gemma3")
"""Families in the short tests; the others are long tests."""
SEEING = [
    pytest.param(kind, marks=() if kind in SHORT else pytest.mark.long) for kind in SAVERS if kind != "qwen2_audio"
]
QUESTIONS = ("What is it?", "Which color has it?")
ANSWERS = ("It is red.", "Blue, and it is wide.")
TEXT = {"instruction": "Name a color that you know, and say why.", "output": "Green, it is the color of plants."}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`saved(kind)`: folder of a tiny model with its processor, made once."""
    folders = {}

    def folder(kind):
        pytest.importorskip(NEEDS.get(kind, "torch"))
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            SAVERS[kind](folders[kind])
        return folders[kind]

    return folder


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    """A machine that is not faster in bfloat16, so that a run without `bf16` computes in float32."""
    monkeypatch.setattr(device, "bf16_speedup", lambda threads: 1.0)
    monkeypatch.setattr("llf_core.estimate.devices.cached_speedup", lambda threads: 1.0)


@pytest.fixture
def rows(tmp_path):
    """Two questions about pictures of different sizes, and one without a picture."""
    pictures = [Image.new("RGB", (60, 40), "red"), Image.linear_gradient("L").resize((90, 45)).convert("RGB")]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    asked = [
        {"instruction": f"<image>{question}", "output": answer, "images": [f"{number}.png"]}
        for number, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
    ]
    asked.append(TEXT)
    (tmp_path / "rows.json").write_text(json.dumps(asked))
    pairs = [
        {"instruction": one["instruction"], "input": "", "chosen": one["output"], "rejected": f"No, {number} of it."}
        | ({"images": one["images"]} if "images" in one else {})
        for number, one in enumerate(asked)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    return tmp_path


def of_run(model, folder, **changes):
    """Keys of a run whose steps have all three rows."""
    return {
        "model_name_or_path": str(model), "dataset": str(folder / "rows.json"), "media_dir": str(folder),
        "finetuning_type": "lora", "lora_target": "all", "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 1, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "warmup_steps": 0,
        "max_steps": 3, "save_steps": 1, "save_total_limit": None, "logging_steps": 1, "cutoff_len": 256, "seed": 7,
    } | changes  # fmt: skip


class Plain:
    """A model and its processor as plain transformers load them."""

    def __init__(self, folder):
        self.model = AutoModelForMultimodalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    def prompt(self, question, picture):
        content = [{"type": "text", "text": question}]
        if picture is not None:
            content.insert(0, {"type": "image"})
        return self.processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )

    def inputs(self, prompt, answer, picture):
        """Inputs of a conversation, with labels for the response alone."""
        name, text = type(self.processor).__name__, f"{prompt}{answer}<|im_end|>\n"
        if picture is None:
            made = self.processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        elif name == "PaliGemmaProcessor":
            made = self.processor.tokenizer(
                text.replace("<image>", "<image>" * 4), add_special_tokens=False, return_tensors="pt"
            )
            made |= self.processor.image_processor(picture, return_tensors="pt")
        else:
            crop = {"images_kwargs": {"crop_to_patches": False}} if name == "InternVLProcessor" else {}
            made = self.processor(
                text=[text], images=[[picture]], add_special_tokens=False, return_tensors="pt", **crop
            )
        count = len(self.processor.tokenizer(f"{answer}<|im_end|>\n", add_special_tokens=False)["input_ids"])
        labels = made["input_ids"].clone()
        labels[:, :-count] = IGNORED
        if name == "PaliGemmaProcessor":
            made["token_type_ids"] = (labels != IGNORED).long()
        return {key: value for key, value in made.items() if key != "labels"}, labels[0]

    def answered(self, prompt, answer, **media):
        """`inputs` with media of any kind."""
        run = self.processor if media else self.processor.tokenizer
        made = run(text=[f"{prompt}{answer}<|im_end|>\n"], add_special_tokens=False, return_tensors="pt", **media)
        count = len(self.processor.tokenizer(f"{answer}<|im_end|>\n", add_special_tokens=False)["input_ids"])
        labels = made["input_ids"].clone()
        labels[:, :-count] = IGNORED
        return {key: value for key, value in made.items() if key not in {"labels", "video_metadata"}}, labels[0]

    @torch.no_grad()
    def log_probs(self, inputs, labels, model=None):
        """Log-probabilities of the tokens of a response, computed alone, without padding."""
        logits = (model or self.model)(**inputs, use_cache=False).logits[0].double()
        return -F.cross_entropy(logits[:-1], labels[1:], reduction="none")[labels[1:] != IGNORED]

    def adapted(self, checkpoint):
        return PeftModel.from_pretrained(self.model, str(checkpoint)).eval()


def prepared(keys):
    """The training examples of a config."""
    config = keys if isinstance(keys, RunConfig) else RunConfig.load(keys)
    source = resolve_model(config.model.model_name_or_path, config)
    tokenizer = load_tokenizer(source, config)
    return prepare(config, tokenizer, processor=load_processor(source, config, tokenizer)).train


def conversations(plain, folder):
    for row in json.loads((folder / "rows.json").read_text()):
        picture = Image.open(folder / row["images"][0]) if "images" in row else None
        prompt = plain.prompt(row["instruction"].removeprefix("<image>"), picture)
        yield plain.inputs(prompt, row["output"], picture)


@pytest.mark.parametrize("kind", SEEING)
def test_tokens_and_losses_are_those_of_transformers(kind, saved, rows, make_run):
    folder = make_run(**of_run(saved(kind), rows))
    assert run_attempt(folder, 1) == 0, read_status(folder).reason
    losses = RunReader(folder).metrics().values("loss")
    plain = Plain(saved(kind))
    expected = list(conversations(plain, rows))

    for row in prepared(of_run(saved(kind), rows)):
        inputs, labels = expected[row["index"]]
        assert row["input_ids"] == inputs["input_ids"][0].tolist()
        assert row["labels"] == labels.tolist()

    def loss(model=None):
        return -torch.cat([plain.log_probs(*one, model=model) for one in expected]).mean().item()

    assert losses[0] == pytest.approx(loss(), rel=LIMIT)
    trained = plain.adapted(folder.checkpoints / "checkpoint-2")
    assert losses[2] == pytest.approx(loss(trained), rel=LIMIT)
    assert losses[2] < losses[0]


@pytest.mark.parametrize("kind", SEEING)
def test_preference_losses_are_those_of_transformers(kind, saved, rows, make_run):
    changes = {"stage": "dpo", "dataset": str(rows / "pairs.json"), "max_steps": 2, "learning_rate": 1e-3}
    folder = make_run(**of_run(saved(kind), rows, **changes))
    assert run_attempt(folder, 1) == 0, read_status(folder).reason
    losses = RunReader(folder).metrics().values("loss")
    assert losses[0] == pytest.approx(log(2), rel=LIMIT)

    plain = Plain(saved(kind))
    examples = []
    for row in json.loads((rows / "pairs.json").read_text()):
        picture = Image.open(rows / row["images"][0]) if "images" in row else None
        prompt = plain.prompt(row["instruction"].removeprefix("<image>"), picture)
        examples.append([plain.inputs(prompt, row[side], picture) for side in ("chosen", "rejected")])
    before = [[plain.log_probs(*side).sum() for side in example] for example in examples]
    trained = plain.adapted(folder.checkpoints / "checkpoint-1")
    after = [[plain.log_probs(*side, model=trained).sum() for side in example] for example in examples]
    margins = torch.tensor([new[0] - new[1] - old[0] + old[1] for new, old in zip(after, before, strict=True)])
    assert losses[1] == pytest.approx(-F.logsigmoid(0.1 * margins).mean().item(), rel=LIMIT)
    assert losses[1] < losses[0]


TRAINED = {
    "tower": {"freeze_vision_tower": False, "freeze_language_model": True},
    "projector": {"freeze_multi_modal_projector": False, "freeze_language_model": True},
    "all": {"freeze_vision_tower": False, "freeze_multi_modal_projector": False},
}


METHODS = ("full", "lora", "freeze")
QUICK = {("llava", "full", "projector"), ("llava", "lora", "all"), ("llava", "full", "tower")}
PARTS = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.long)
    for case in product(("llava", "qwen3_vl", "internvl"), METHODS, TRAINED)
]


@pytest.mark.parametrize(("kind", "method", "trained"), PARTS)
def test_the_parts_that_are_not_frozen_are_trained(kind, method, trained, saved, rows, make_run):
    keys = {"finetuning_type": method, "max_steps": 2, "freeze_trainable_layers": 1, "learning_rate": 1e-3}
    folder = make_run(**of_run(saved(kind), rows, **keys, **TRAINED[trained]))
    assert run_attempt(folder, 1) == 0, read_status(folder).reason
    base = AutoModelForMultimodalLM.from_pretrained(saved(kind), dtype=torch.float32)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    if method == "lora":
        after = PeftModel.from_pretrained(base, str(folder.output)).merge_and_unload().state_dict()
    else:
        after = AutoModelForMultimodalLM.from_pretrained(folder.output, dtype=torch.float32).state_dict()
    changed = {part_of(name) for name, value in after.items() if not torch.equal(value, before[name])}
    assert (
        changed == {"tower": {"tower"}, "projector": {"projector"}, "all": {"tower", "projector", "language"}}[trained]
    )
    if method == "lora" and trained == "all":
        the_forecast_of_the_config_counts_the_encoder(folder)


def the_forecast_of_the_config_counts_the_encoder(folder):
    """As that of the loaded model, whose adapters of the projector it does not count."""
    config = run_config(folder)
    tokens = np.array([len(one["input_ids"]) for one in prepared(config)])
    lengths = of_lengths(tokens, basis="", exact=True, patches=lengths_from_text(config).patches)
    forecast = Forecaster(config, lengths, find_devices()[-1])
    assert (forecast.step.training.patches, forecast.step.training.trains_encoder) == (3 * (4 + 1), True)
    event = next(one for one in map(json.loads, folder.events.read_text().splitlines()) if one["type"] == "memory")
    found = forecast.uncorrected_memory(checkpointing=False)
    assert found.total - PROCESS_BYTES["cpu"] == pytest.approx(event["forecast"] - PROCESS_BYTES["cpu"], rel=0.02)


def part_of(name):
    if "projector" in name or ("merger" in name and "deepstack" not in name):
        return "projector"
    return "tower" if "vision" in name or "visual" in name else "language"


def test_a_text_model_whose_language_model_is_frozen_is_refused(rows, make_run, tiny_model_dir):
    (rows / "texts.json").write_text(json.dumps([TEXT]))
    keys = {"freeze_language_model": True, "freeze_vision_tower": False, "dataset": str(rows / "texts.json")}
    folder = make_run(**of_run(tiny_model_dir, rows, **keys))
    assert run_attempt(folder, 1) == 2
    assert "nothing else is trained: LlamaForCausalLM is a model of text alone" in read_status(folder).reason


def voice(path, rate, seconds):
    """Writes a tone with 16 bits in two channels."""
    tone = np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat((tone * 16000).astype("<i2"), 2).tobytes())
    return tone.astype(np.float32) * 16000 / 2**15


@pytest.mark.long
def test_audio_is_trained_on_as_transformers_does(saved, tmp_path, make_run):
    pytest.importorskip("av")
    model = saved("qwen2_audio")
    tones = [voice(tmp_path / "0.wav", 16000, 0.4), voice(tmp_path / "1.wav", 16000, 0.7)]
    rows = [
        {"instruction": f"<audio>{question}", "output": answer, "audios": [f"{number}.wav"]}
        for number, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
    ]
    (tmp_path / "rows.json").write_text(json.dumps([*rows, TEXT]))
    folder = make_run(**of_run(model, tmp_path))
    assert run_attempt(folder, 1) == 0, read_status(folder).reason
    assert "AutoModelForMultimodalLM" in (folder.output / "README.md").read_text()

    plain = Plain(model)
    expected = []
    for row, tone in zip([*rows, TEXT], [*tones, None], strict=True):
        parts = [{"type": "text", "text": row["instruction"].removeprefix("<audio>")}]
        messages = [{"role": "user", "content": parts if tone is None else [{"type": "audio"}, *parts]}]
        prompt = plain.processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        sound = {} if tone is None else {"audio": [tone], "sampling_rate": 16000}
        expected.append(plain.answered(prompt, row["output"], **sound))
    losses = RunReader(folder).metrics().values("loss")
    for step, load in ((0, lambda: None), (2, lambda: plain.adapted(folder.checkpoints / "checkpoint-2"))):
        trained = load()
        loss = -torch.cat([plain.log_probs(*one, model=trained) for one in expected]).mean().item()
        assert losses[step] == pytest.approx(loss, rel=LIMIT)
    other = prepared(of_run(model, tmp_path))
    voice(tmp_path / "0.wav", 8000, 0.4)  # resampled: as many tokens
    assert len(prepared(of_run(model, tmp_path, overwrite_cache=True))[0]["input_ids"]) == len(other[0]["input_ids"])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "gemma4"])
def test_videos_are_trained_on_as_transformers_does(kind, saved, tmp_path, make_run):
    av = pytest.importorskip("av")
    model = saved(kind)
    shown = np.stack([np.full((48, 64, 3), 30 * number, dtype=np.uint8) for number in range(8)])
    shown[:, 10:20, 10:30] = 200
    with av.open(str(tmp_path / "0.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"  # without loss
        for frame in shown:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    rows = [{"instruction": "<video>What is it?", "output": "It is a light that grows.", "videos": ["0.mkv"]}]
    (tmp_path / "rows.json").write_text(json.dumps([*rows, TEXT]))
    folder = make_run(**of_run(model, tmp_path, cutoff_len=512))
    assert run_attempt(folder, 1) == 0, read_status(folder).reason

    plain = Plain(model)
    taken = [0, 2, 4, 7]  # two a second of two seconds
    told = {"fps": 4.0, "total_num_frames": 8, "frames_indices": taken, "duration": 2.0, "width": 64, "height": 48}
    video = {"videos": [shown[taken]], "videos_kwargs": {"video_metadata": [told], "do_sample_frames": False}}
    expected = []
    for row, seen in (rows[0], video), (TEXT, {}):
        parts = [{"type": "text", "text": row["instruction"].removeprefix("<video>")}]
        messages = [{"role": "user", "content": [{"type": "video"}, *parts] if seen else parts}]
        prompt = plain.processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        expected.append(plain.answered(prompt, row["output"], **seen))
    for row in prepared(of_run(model, tmp_path, cutoff_len=512)):
        assert row["input_ids"] == expected[row["index"]][0]["input_ids"][0].tolist()
    loss = -torch.cat([plain.log_probs(*one) for one in expected]).mean().item()
    assert RunReader(folder).metrics().values("loss")[0] == pytest.approx(loss, rel=LIMIT)


def test_videos_of_different_lengths_are_one_batch(saved, tmp_path):
    av = pytest.importorskip("av")
    model = saved("internvl")
    rows = []
    for number, frames in enumerate((4, 8)):
        with av.open(str(tmp_path / f"{number}.mkv"), "w") as file:
            stream = file.add_stream("ffv1", rate=4)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
            for place in range(frames):
                frame = np.full((48, 64, 3), 20 * place + 9 * number, dtype=np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(stream.encode(None))
        rows.append({"instruction": "<video>What is it?", "output": "A light.", "videos": [f"{number}.mkv"]})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    config = RunConfig.load(of_run(model, tmp_path, cutoff_len=512))
    source = resolve_model(str(model), config)
    tokenizer = load_tokenizer(source, config)
    processor = load_processor(source, config, tokenizer)
    examples = list(prepare(config, tokenizer, processor=processor).train)
    collate = Collator(tokenizer, processor=processor)
    both, alone = collate(examples), [collate([one]) for one in examples]
    assert torch.equal(both["pixel_values"], torch.cat([one["pixel_values"] for one in alone]))
    assert len(both["pixel_values"]) == 2 + 4  # frames, two a second
    for row, one in enumerate(alone):
        length = one["attention_mask"].sum()
        assert torch.equal(both["input_ids"][row, :length], one["input_ids"][0, :length])
        assert both["attention_mask"][row].sum() == length
