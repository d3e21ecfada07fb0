"""Plain `transformers.Trainer`: `SETTINGS.yaml RECORD.json`.

With PEFT where the settings have `lora` or `oft`, and with the authors' optimizers where they have `galore` or `badam`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, OFTConfig, get_peft_model
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


def optimizer(model: Any, settings: dict[str, Any]) -> Any:
    """The optimizer of `galore-torch` or `badam` as their read-me files build it; None for the Trainer's own."""
    rate = settings["arguments"]["learning_rate"]
    if "galore" in settings:
        from galore_torch import GaLoreAdamW

        options = dict(settings["galore"])
        targets = options.pop("targets")
        chosen = {name for name, _ in model.named_parameters() if any(part in name for part in targets)}
        matrices = [one for name, one in model.named_parameters() if name in chosen]
        others = [one for name, one in model.named_parameters() if name not in chosen]
        return GaLoreAdamW([{"params": others}, {"params": matrices, **options}], lr=rate)
    if "badam" in settings:
        from badam import BlockOptimizer

        base = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
        return BlockOptimizer(base, list(model.named_parameters()), verbose=0, **settings["badam"])
    return None


def main() -> None:
    settings = yaml.safe_load(Path(sys.argv[1]).read_text())
    torch.manual_seed(settings["arguments"]["seed"])
    model, tokenizer = load(settings), AutoTokenizer.from_pretrained(settings["folder"])
    if "lora" in settings:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings["lora"]))
    if "oft" in settings:
        model = get_peft_model(model, OFTConfig(task_type="CAUSAL_LM", **settings["oft"]))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=settings["output"], **settings["arguments"]),
        train_dataset=rows(settings["rows"]),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[Recorder(sys.argv[2])],
        optimizers=(optimizer(model, settings), None),
    )
    trainer.train()
    trainer.save_model(settings["output"])


if __name__ == "__main__":
    main()
