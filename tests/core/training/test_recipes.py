"""LLaMA-Factory's examples for DeepSpeed, FSDP and its `v1`, with model, data and steps changed, train to the end."""

import json

import pytest
from safetensors.torch import load_file

from llf_core.config import RunConfig
from llf_core.launch import launch
from tests.core.config.test_engine_configs import LISTED, files  # noqa: F401 - a fixture
from tests.core.training.test_processes import ended, settings, values  # noqa: F401 - a fixture

pytestmark = [pytest.mark.launches, pytest.mark.long, pytest.mark.timeout(600)]
RECIPES = (
    "train_full/qwen3_full_sft", "train_lora/qwen3_lora_sft_ds3", "v1/train_full/train_full_deepspeed",
    "v1/train_full/train_full_fsdp2", "v1/train_batching_strategy/train_full_fsdp2_padding_free",
    "v1/train_lora/train_lora_sft",
)  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_an_example_trains_to_the_end(name, files, settings):  # noqa: F811
    v1 = name.startswith("v1/")
    asked = LISTED["common_v1" if v1 else "common"] | LISTED["examples"][name]
    path = files / "example.json"
    path.write_text(json.dumps(asked))
    changes = {
        "model_name_or_path": settings["model_name_or_path"], "dataset": settings["dataset"], "template": "chatml",
        "max_steps": 4, "cutoff_len": 64, "use_cpu": True, "threads": 1, "num_processes": 2, "logging_steps": 1,
        "preprocessing_num_workers": 1, "dataloader_num_workers": 0, "flash_attn": "auto",
    }  # fmt: skip
    config = RunConfig.load(path, [f"{key}={value}" for key, value in changes.items()])
    assert config.launch.strategy == "fsdp2"
    run = launch(config)
    assert ended(run).state == "finished", run.status().reason
    assert len(values(run, "loss")) == 4
    (weights,) = run.output.glob("*.safetensors")
    assert load_file(weights)
