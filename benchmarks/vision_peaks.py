"""The memory forecast of a vision model against the measured peak of a CPU run: frozen or trained tower, 1 or 4 images.

    python -m benchmarks.vision_peaks [--cases 4]

A LLaVA of random numbers in the shape of SmolLM2-135M's text model and a vision tower of CLIP's base size, whose images
have 196 tokens, is trained for four steps by LoRA. The trainer keeps its peak in `past_runs.json`. Prints a table and
writes `results/vision_peaks.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from itertools import islice, product
from pathlib import Path
from typing import Any

from benchmarks.estimate_peaks import CPU, measure, without_past_runs
from benchmarks.rows import MODEL
from llf_core.config import RunConfig
from llf_core.data.text_lengths import lengths_from_text
from llf_core.estimate import check_fit

STORED = Path(__file__).parent / "results" / "vision_peaks.json"
TEXT = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "tie_word_embeddings": True,
}  # fmt: skip
SIDE, PATCH, ROWS = 224, 16, 16
CASES = tuple(product((True, False), (1, 4)))
"""Whether the tower is frozen, and the images of an example."""
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
COMMON: dict[str, Any] = {
    "stage": "sft", "finetuning_type": "lora", "lora_rank": 8, "bf16": True, "max_steps": 4, "cutoff_len": 1024,
    "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 2e-4, "logging_steps": 1,
    "save_strategy": "no", "use_cpu": True, "seed": 42,
}  # fmt: skip


def main() -> None:
    """Run the cases, print the table and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first ones")
    count = parser.parse_args().cases
    runs = []
    with tempfile.TemporaryDirectory(prefix="llf-vision-") as scratch:
        model, data = Path(scratch) / "model", Path(scratch) / "data"
        write_model(model)
        data.mkdir()
        for frozen, images in islice(CASES, count):
            write_rows(data, images)
            settings = COMMON | {"freeze_vision_tower": frozen, "media_dir": str(data)}
            peak, forecast = measure(model, settings, data), _forecast(model, settings, data)
            runs.append({"frozen": frozen, "images": images, "peak": peak, "forecast": forecast})
            tower = "frozen" if frozen else "trained"
            figures = f"peak {peak / 2**30:5.2f} GiB, forecast {forecast / 2**30:5.2f} ({forecast / peak - 1:+.1%})"
            sys.stdout.write(f"tower {tower:8} {images} images: {figures}\n")
            sys.stdout.flush()
    STORED.write_text(json.dumps({"format": 1, "runs": runs}, indent=1) + "\n")


def write_model(folder: Path) -> None:
    """Write the LLaVA with its processor, and the tokenizer of the embedded model."""
    import torch
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    from llf_core.models import resolve_model

    tokenizer: Any = AutoTokenizer.from_pretrained(
        resolve_model(MODEL, RunConfig.load({"model_name_or_path": MODEL, "dataset": "llf_demo"})).folder
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = TEMPLATE
    config = LlavaConfig(
        text_config=LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        vision_config=CLIPVisionConfig(image_size=SIDE, patch_size=PATCH),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    sizes: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(**sizes),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


def write_rows(folder: Path, images: int) -> None:
    """Write the data set `train`, each of whose examples has as many images."""
    import numpy as np
    from PIL import Image

    dots = np.random.default_rng(0).integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)
    names = [f"{number}.png" for number in range(images)]
    for name, image in zip(names, dots, strict=True):
        Image.fromarray(image).save(folder / name)
    row = {"instruction": "<image>" * images + "What is it?", "output": "It is noise.", "images": names}
    (folder / "train.json").write_text(json.dumps([row] * ROWS))
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    told = {"train": {"file_name": "train.json", "columns": columns}}
    (folder / "dataset_info.json").write_text(json.dumps(told))


def _forecast(model: Path, settings: dict[str, Any], data: Path) -> int:
    """The forecast of a case in bytes, with no past run to learn from."""
    config = RunConfig.load(settings | {"model_name_or_path": str(model), "dataset": "train", "dataset_dir": str(data)})
    with tempfile.TemporaryDirectory(prefix="llf-vision-") as home, without_past_runs(Path(home)):
        found = check_fit(config, lengths_from_text(config), (CPU,))
    assert found.memory is not None
    return found.memory.total


if __name__ == "__main__":
    main()
