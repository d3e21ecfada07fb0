"""Unsloth's model in TRL's `SFTTrainer`, on a CUDA card: `SETTINGS.yaml RECORD.json`."""

import sys
from pathlib import Path

import yaml
from unsloth import FastLanguageModel  # before the libraries that it patches

import torch  # isort: skip
from datasets import Dataset  # isort: skip
from trl import SFTConfig, SFTTrainer  # isort: skip

from benchmarks.runners.record import Recorder
from benchmarks.runners.trainer import rows


def main() -> None:
    settings = yaml.safe_load(Path(sys.argv[1]).read_text())
    options = settings["model"] | {"dtype": getattr(torch, settings["model"]["dtype"])}
    model, tokenizer = FastLanguageModel.from_pretrained(settings["folder"], **options)
    trainer = SFTTrainer(
        model=FastLanguageModel.get_peft_model(model, **settings["lora"]),
        args=SFTConfig(output_dir=settings["output"], **settings["arguments"]),
        train_dataset=Dataset.from_list(rows(settings["rows"])),
        processing_class=tokenizer,
        callbacks=[Recorder(sys.argv[2])],
    )
    trainer.train()
    trainer.save_model(settings["output"])


if __name__ == "__main__":
    main()
