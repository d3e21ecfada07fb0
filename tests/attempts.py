"""A run folder for a tiny real model, trained in this process: fixtures for the tests of stages and of faults."""

import json

import pytest
import yaml

QUESTIONS = [f"What is {a} plus {b}?" for a in range(6) for b in range(4)]


@pytest.fixture
def data_file(tmp_path):
    """24 short Alpaca examples."""
    path = tmp_path / "sums.json"
    rows = [{"instruction": q, "input": "", "output": f"It is number {i}."} for i, q in enumerate(QUESTIONS)]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def settings(tiny_model_dir, data_file):
    """A config that trains in well under a second."""
    return {
        "model_name_or_path": str(tiny_model_dir),
        "stage": "sft",
        "finetuning_type": "lora",
        "dataset": str(data_file),
        "cutoff_len": 128,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 6,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_steps": 2,
        "seed": 7,
    }


@pytest.fixture
def make_run(settings):
    """`make_run(**changes) -> RunFolder`: a new run that nobody trains yet."""
    from llf_core.config import RunConfig
    from llf_core.runs import create_run

    def make(**changes):
        asked = {key: value for key, value in (settings | changes).items() if value is not None}
        config = RunConfig.load(yaml.safe_dump(asked))
        return create_run(config.yaml(defaults=True), "tiny")

    return make


@pytest.fixture
def trained(make_run):
    """`trained(**changes) -> (RunFolder, exit code)`: one attempt, made in this process."""
    from llf_core.training.session import run_attempt

    def train(**changes):
        folder = make_run(**changes)
        return folder, run_attempt(folder, 1)

    return train
