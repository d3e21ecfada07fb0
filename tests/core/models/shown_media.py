"""Rows with images or sound for the trials of `every_architecture`, and what plain transformers computes from them."""

from __future__ import annotations

import json
import wave
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COLUMNS = {"image": "images", "audio": "audios"}
ARGUMENTS = {"image": "images", "audio": "audio"}
SIZES = ((60, 40), (48, 64))
"""Width and height of the images."""
RATE = 16_000
SECONDS = (1.0, 1.5)
OPTIONS = ("crop_to_patches", "do_pan_and_scan")
"""Options of image processors that LLF sets to false, as LLaMA-Factory does."""
ABOUT_TOKENS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
PREFIX = ("paligemma",)
"""Types whose prompt attends to itself in both directions."""
UNLEARNED = -100
LONGEST = 4096
"""`cutoff_len` of these trials."""


def media_kinds(processor: Any) -> list[str]:
    """What a processor takes, of images and sound."""
    parts = set(type(processor).get_attributes())
    image = ["image"] if "image_processor" in parts else []
    return image + (["audio"] if parts & {"feature_extractor", "audio_processor"} else [])


def sampling_rate(processor: Any) -> int:
    """The rate in Hz of the sound that a processor takes."""
    part = getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)
    return int(getattr(part, "sampling_rate", RATE))


def media_rows(kind: str, folder: Path, rate: int = RATE) -> list[dict[str, Any]]:
    """Two rows with an image or sound (of a rate in Hz) each, and one without; the files are written to the folder."""
    rows: list[dict[str, Any]] = []
    for number in range(2):
        asked = {"instruction": f"<{kind}>What is number {number}?", "input": ""}
        answer = {"output": "It is a number." + " Yes." * number}
        file = _image(folder, number) if kind == "image" else _sound(folder, number, rate)
        rows.append(asked | answer | {COLUMNS[kind]: [str(file)]})
    return [*rows, {"instruction": "What is it?", "input": "", "output": "It is a number.", COLUMNS[kind]: []}]


def _image(folder: Path, number: int) -> Path:
    from PIL import Image

    width, height = SIZES[number]
    dots = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = folder / f"{number}.png"
    Image.fromarray(dots).save(file)
    return file


def _sound(folder: Path, number: int, rate: int) -> Path:
    noise = np.random.default_rng(number).integers(-9000, 9000, int(rate * SECONDS[number]), dtype=np.int16)
    file = folder / f"{number}.wav"
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(noise.tobytes())
    return file


def plain_media_loss(model: Any, base: Path, kind: str, rows: list[dict[str, Any]], data: Iterable[Any]) -> float:
    """The loss from the logits of plain transformers for what its own processor makes, one example at a time.

    The labels are those of the prepared data.

    Raises:
        AssertionError: prepared tokens are other ones than those of the processor.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own short name
    from transformers import AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(base)
    total, learned = 0.0, 0
    for example in data:
        inputs = _inputs(processor, kind, rows[example["index"]])
        if inputs["input_ids"][0].tolist() != list(example["input_ids"]):
            raise AssertionError(f"prepared tokens differ from the processor's own in row {example['index']}")
        labels = torch.tensor(example["labels"])
        if model.config.model_type in PREFIX:
            inputs["token_type_ids"] = (labels != UNLEARNED).cumsum(0).clamp(max=1)[None]
        logits = model(**inputs, use_cache=False).logits[0].double()
        total += float(F.cross_entropy(logits[:-1], labels[1:], reduction="sum"))
        learned += int((labels[1:] >= 0).sum())
    return total / learned


def _inputs(processor: Any, kind: str, row: dict[str, Any]) -> dict[str, Any]:
    from PIL import Image

    files = row[COLUMNS[kind]]
    shown = [{"type": kind} for _ in files]
    asked = {"type": "text", "text": row["instruction"].removeprefix(f"<{kind}>")}
    messages = [
        {"role": "user", "content": [*shown, asked]},
        {"role": "assistant", "content": [{"type": "text", "text": row["output"]}]},
    ]
    if not files:  # some processors want an image
        text = processor.tokenizer.apply_chat_template(messages, tokenize=False, chat_template=processor.chat_template)
        return dict(processor.tokenizer([text], add_special_tokens=False, return_tensors="pt"))
    text = processor.tokenizer.apply_chat_template(messages, tokenize=False, chat_template=processor.chat_template)
    opened = [Image.open(file).convert("RGB") if kind == "image" else _samples(file) for file in files]
    flat = kind == "audio" or type(processor).__name__ == "GotOcr2Processor"
    media = {ARGUMENTS[kind]: opened if flat else [opened]} if files else {}
    options = [one for one in OPTIONS if hasattr(getattr(processor, "image_processor", None), one)]
    options = [] if type(processor).__name__ == "DeepseekOcr2Processor" else options  # counts tokens of its own crops
    media |= dict.fromkeys(options, False) if kind == "image" else {}
    if "mm_token_type_ids" in processor.model_input_names:
        media["return_mm_token_type_ids"] = True
    if type(processor).__name__ == "ChameleonProcessor":  # no separator for a picture to be made
        media["return_for_text_completion"] = True
    if type(processor).__name__ == "PaliGemmaProcessor":  # which writes further tokens around a text
        text = text.replace(processor.image_token, processor.image_token * processor.image_seq_length)
        made = dict(processor.tokenizer([text], add_special_tokens=False, return_tensors="pt"))
        return made | dict(processor.image_processor(opened, return_tensors="pt"))
    made = dict(processor(text=[text], **media, add_special_tokens=False, return_tensors="pt"))
    if made.keys() <= ABOUT_TOKENS:
        raise AssertionError(f"the processor makes nothing of the {kind}")
    return made


def _samples(file: str) -> Any:
    with wave.open(file) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), dtype=np.int16).astype(np.float32) / 32768


def write_rows(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Writes rows as a dataset."""
    file = folder / "shown.json"
    file.write_text(json.dumps(rows))
    return file
