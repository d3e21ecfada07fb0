"""Prompts, a reward model and a run of PPO on the tiny Llama."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from llf_core.models import device as devices
from tests.attempts import make_run, trained
from tests.core.stages.ppo.endpoint import Endpoint

__all__ = ["make_run", "trained"]

QUESTIONS = [f"What is {a} plus {b}?" for a in range(4) for b in range(4)]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Every model computes in float32."""
    monkeypatch.setattr(devices, "bf16_speedup", lambda threads: 0.5)


@pytest.fixture
def prompts_file(tmp_path):
    """16 prompts, of which some are longer than others."""
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([{"instruction": one + " Say it." * (len(one) % 3)} for one in QUESTIONS]))
    return path


@pytest.fixture(scope="session")
def classifier(tiny_model_dir):
    """The tiny Llama as a classifier whose head is not what it was at first. Shared: never change it."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=1)
    return disturbed(model)


@pytest.fixture(scope="session")
def reward_adapter(tiny_model_dir, tiny_tokenizer, tmp_path_factory):
    """A reward model that is an adapter of the tiny Llama, as PEFT saves one."""
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=1)
    settings = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "down_proj"])
    folder = tmp_path_factory.mktemp("reward") / "adapter"
    disturbed(get_peft_model(base, settings)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def endpoint():
    """An endpoint whose score is how many of the answer's characters are letters."""
    one = Endpoint(lambda text: float(sum(letter.isalpha() for letter in text.rpartition("assistant\n")[2])))
    yield one
    one.close()


@pytest.fixture
def settings(tiny_model_dir, prompts_file, endpoint):
    """A run of PPO of a few steps."""
    return {
        "model_name_or_path": str(tiny_model_dir),
        "stage": "ppo",
        "finetuning_type": "lora",
        "dataset": str(prompts_file),
        "cutoff_len": 128,
        "reward_model_type": "api",
        "reward_model": endpoint.url,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "ppo_epochs": 2,
        "max_steps": 8,
        "learning_rate": 5e-3,
        "max_new_tokens": 6,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "logging_steps": 1,
        "save_steps": 100,
        "seed": 7,
        "threads": 1,
    }


@pytest.fixture
def make_context(make_run):
    """`make_work(**changes) -> Work`: what a stage is made on."""
    from llf_core.config import RunConfig
    from llf_core.models import plan_device
    from llf_core.runs import RunWriter
    from llf_core.training.load_context import load_context

    def make(**changes):
        folder = make_run(**changes)
        config = RunConfig.load(folder.config)
        return load_context(folder, config, RunWriter(folder, 1), plan_device(config))

    return make


def disturbed(model):
    """With an adapter or a head that is not what it was at first; what is beside it stays as it is."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if ("lora_B.default" in name or "score" in name) and "llf_value" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()
