"""The state of a method in checkpoints."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from llf_core.runs import Checkpoints, read_status, status
from llf_core.training.callbacks import METHOD_FILE
from llf_core.training.session import run_attempt
from tests.core.training.test_session import stop_at


@pytest.mark.parametrize("tensors", [{"exp_avg_ipt.none": torch.ones(2)}, None])
def test_a_state_of_another_model_ends_a_resume_with_a_sentence(make_run, monkeypatch, tensors):
    folder = make_run(finetuning_type="adalora", adalora_initial_rank=12, lora_rank=4, max_steps=20)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 1)
        assert run_attempt(folder, 1) == 0
    path = folder.checkpoints / "checkpoint-1" / METHOD_FILE
    save_file(tensors or {f"{name}.more": one for name, one in load_file(path).items()}, path)
    Checkpoints(folder).finish(1)
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) != 0
    assert f"{METHOD_FILE} in checkpoint-1 is not one of this run: " in read_status(folder).reason
