"""Plain `transformers.Trainer`, with PEFT where the settings have `lora`: `SETTINGS.yaml RECORD.json`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from benchmarks.runners.record import Recorder


def load(settings: dict[str, Any]) -> Any:
    """The model in the precision that the settings name, quantized where they say how."""
    options = dict(settings["model"])
    dtype = getattr(torch, options.pop("dtype"))
    if "quantization" in settings:
        options["quantization_config"] = BitsAndBytesConfig(**settings["quantization"])
    return AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=dtype, **options)


def rows(file: str) -> list[dict[str, list[int]]]:
    """Rows of `input_ids` and `labels`."""
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def main() -> None:
    settings = yaml.safe_load(Path(sys.argv[1]).read_text())
    torch.manual_seed(settings["arguments"]["seed"])
    model, tokenizer = load(settings), AutoTokenizer.from_pretrained(settings["folder"])
    if "lora" in settings:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings["lora"]))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=settings["output"], **settings["arguments"]),
        train_dataset=rows(settings["rows"]),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[Recorder(sys.argv[2])],
    )
    trainer.train()
    trainer.save_model(settings["output"])


if __name__ == "__main__":
    main()
