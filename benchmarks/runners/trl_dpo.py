"""TRL's `DPOTrainer`: `SETTINGS.yaml RECORD.json`."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer

from benchmarks.runners.record import Recorder
from benchmarks.runners.trainer import load, rows


class Pairs(DPOTrainer):
    """Takes pairs that are token ids already, and times what it does before the first step for its reference."""

    reference_s = 0.0

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, *args: Any) -> Dataset:
        start = time.perf_counter()
        dataset = super()._precompute_ref_logps(*args)
        self.reference_s += time.perf_counter() - start
        return dataset


def main() -> None:
    settings = yaml.safe_load(Path(sys.argv[1]).read_text())
    torch.manual_seed(settings["arguments"]["seed"])
    recorder = Recorder(sys.argv[2])
    trainer = Pairs(
        model=load(settings),
        args=DPOConfig(output_dir=settings["output"], **settings["arguments"]),
        train_dataset=Dataset.from_list(rows(settings["rows"])),
        processing_class=AutoTokenizer.from_pretrained(settings["folder"]),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **settings["lora"]),
        callbacks=[recorder],
    )
    recorder.more["reference_s"] = round(trainer.reference_s, 3)
    if settings["adapter"]:
        # The reference is the model without an adapter: given one that has been loaded, TRL would copy that for it.
        set_peft_model_state_dict(trainer.model, load_peft_weights(settings["adapter"], device="cpu"))
    trainer.train()
    trainer.save_model(settings["output"])


if __name__ == "__main__":
    main()
