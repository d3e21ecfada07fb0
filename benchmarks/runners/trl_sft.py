"""TRL's `SFTTrainer`: `SETTINGS.yaml RECORD.json`."""

import sys
from pathlib import Path

import torch
import yaml
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.runners.record import Recorder
from benchmarks.runners.trainer import load, rows


def main() -> None:
    settings = yaml.safe_load(Path(sys.argv[1]).read_text())
    torch.manual_seed(settings["arguments"]["seed"])
    trainer = SFTTrainer(
        model=load(settings),
        args=SFTConfig(output_dir=settings["output"], **settings["arguments"]),
        train_dataset=Dataset.from_list(rows(settings["rows"])),
        processing_class=AutoTokenizer.from_pretrained(settings["folder"]),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **settings["lora"]),
        callbacks=[Recorder(sys.argv[2])],
    )
    trainer.train()
    trainer.save_model(settings["output"])


if __name__ == "__main__":
    main()
