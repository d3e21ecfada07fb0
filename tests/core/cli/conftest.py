"""Commands run in this process, on a small config."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from llf_core.cli import app


@pytest.fixture
def llf():
    runner = CliRunner()
    return lambda *args, **more: runner.invoke(app, [str(arg) for arg in args], **more)


@pytest.fixture
def config(tmp_path, tiny_model_dir):
    """A YAML file of a tiny run that goes on for a while."""
    rows = [{"instruction": f"Say {i}.", "input": "", "output": f"It is {i}."} for i in range(20)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    path = tmp_path / "config.yaml"
    settings = {
        "model_name_or_path": str(tiny_model_dir),
        "stage": "sft",
        "finetuning_type": "lora",
        "dataset": "rows.json",
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "logging_steps": 1,
    }
    path.write_text(yaml.safe_dump(settings))
    return path
