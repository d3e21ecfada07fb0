"""A tiny base model with adapters, as a chat loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def adapters(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of three adapters of the tiny model by name, which change its replies."""
    made = {}
    for seed, name in enumerate(("first", "second", "third")):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        settings = LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj", "down_proj"])
        tuned = get_peft_model(model, settings)
        for key, parameter in tuned.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.5)
        made[name] = tmp_path_factory.mktemp(name) / name
        tuned.save_pretrained(made[name])
    return made
