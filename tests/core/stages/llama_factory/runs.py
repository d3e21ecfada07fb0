"""Runs that LLaMA-Factory and LLF both make of the rows in `rows/`, on the model of `same_model.py`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.core.stages.llama_factory.same_model import HERE, HIDDEN, TOKENIZER

if TYPE_CHECKING:
    from pathlib import Path

DPO: dict[str, Any] = {"stage": "dpo", "dataset": "dpo_en_demo", "finetuning_type": "full"}
KTO: dict[str, Any] = {"stage": "kto", "dataset": "kto_en_demo", "finetuning_type": "full"}
SFT: dict[str, Any] = {
    "stage": "sft", "finetuning_type": "full", "dataset": "alpaca,talks",
    "dataset_dir": str(TOKENIZER.parents[1] / "rows"),
}  # fmt: skip
PT: dict[str, Any] = {
    "stage": "pt", "dataset": "texts", "finetuning_type": "full", "template": None, "packing": False,
}  # fmt: skip
LORA: dict[str, Any] = {"finetuning_type": "lora", "learning_rate": 1e-2}
EVALUATED: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 4, "per_device_eval_batch_size": 4}
RUNS: dict[str, dict[str, Any]] = {
    "pt": PT,
    "pt, joined": PT | {"packing": None, "cutoff_len": 10, "preprocessing_num_workers": 2},
    "sft": SFT,
    "sigmoid": DPO | EVALUATED | {"eval_dataset": "dpo_en_demo"},
    "sigmoid, smoothed": DPO | {"dpo_label_smoothing": 0.2},
    "sigmoid, plus sft": DPO | {"pref_ftx": 0.5},
    "sigmoid, plus bco": DPO | {"pref_bco_weight": 0.5},
    "sigmoid, less for length": DPO | {"ld_alpha": 0.4},
    "orpo": DPO | {"pref_loss": "orpo", "pref_beta": 0.7},
    "simpo": DPO | {"pref_loss": "simpo", "pref_beta": 2.0, "simpo_gamma": 1.0},
    "kto": KTO | EVALUATED | {"eval_dataset": "kto_en_demo"},
    "kto, weighted": KTO | {"kto_chosen_weight": 1.5, "kto_rejected_weight": 0.5},
    "kto, plus sft": KTO | {"pref_ftx": 0.2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
    "sigmoid, new adapter": DPO | LORA | {"adapter": 0.0},
    "sigmoid, trained adapter": DPO | LORA | {"adapter": 0.3},
    "kto, new adapter": KTO | LORA | {"adapter": 0.0},
}
RANK = 4


def settings(name: str, model: Path, adapter: Path) -> dict[str, Any]:
    """Keys of a run that both know: two epochs of three or four steps, in an order that the seed decides."""
    chosen = dict(RUNS[name])
    if "adapter" in chosen:
        save_adapter(model, adapter, chosen.pop("adapter"))
        chosen["adapter_name_or_path"] = str(adapter)
    return {
        "model_name_or_path": str(model), "do_train": True, "dataset_dir": str(HERE / "rows"), "template": "chatml",
        "cutoff_len": 2048, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2,
        "learning_rate": 2e-3, "lr_scheduler_type": "cosine", "logging_steps": 1, "save_strategy": "no",
        "use_cpu": True, "seed": 5,
    } | chosen  # fmt: skip


def save_adapter(model: Path, folder: Path, scale: float) -> None:
    """Writes a LoRA adapter, the same wherever it is made; it changes nothing in the model where `scale` is 0."""
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    config = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"]
    )
    adapted = get_peft_model(LlamaForCausalLM.from_pretrained(model, dtype=torch.float32), config)
    numbers = np.random.RandomState(2)
    with torch.no_grad():
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_" in name:
                drawn = torch.from_numpy(numbers.standard_normal(tuple(parameter.shape))).float()
                parameter.copy_((HIDDEN**-0.5 if "lora_A" in name else scale) * drawn)
    adapted.save_pretrained(folder)


def goldens() -> dict[str, dict[str, dict[str, float]]]:
    """Of each run by name, what LLaMA-Factory logged at each of its steps."""
    found: dict[str, dict[str, dict[str, float]]] = json.loads((HERE / "runs.json").read_text())
    return found
