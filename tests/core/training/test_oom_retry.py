"""Out of memory in a step: the same step in smaller parts, with the results of a run that began with them."""

import json
import mmap
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from llf_core.config import RunConfig
from llf_core.models.memory import is_out_of_memory
from llf_core.runs import Checkpoints, RunReader, read_status
from llf_core.runs.step_counters import read_counters
from llf_core.stages.base.loop import DoesNotFitError
from llf_core.stages.sft import SFT
from llf_core.training.failures import explain_failure
from llf_core.training.memory_plan import single_example_error
from llf_core.training.session import run_attempt
from tests.core.training.cramped import ABSURD, cramped
from tests.core.training.small_trainer import LENGTHS, examples, make_trainer
from tests.core.training.test_session import next_attempt, stop_at

ROOT = Path(__file__).parents[3]


@pytest.fixture
def make(tiny_model_dir, tiny_tokenizer, tmp_path):
    def make(batch, accumulation, **changes):
        return make_trainer(
            tiny_model_dir, tiny_tokenizer, examples(), tmp_path, batch=batch, accumulation=accumulation, **changes
        )

    return make


def hexes(values):
    return [float(value).hex() for value in values]


def test_the_real_errors_of_allocators_are_known():
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(ABSURD, dtype=torch.uint8)
    with pytest.raises(MemoryError) as python:
        bytearray(ABSURD)
    assert is_out_of_memory(cpu.value)
    assert is_out_of_memory(python.value)
    with pytest.raises(OSError, match="Cannot allocate memory") as file:
        mmap.mmap(-1, ABSURD)
    assert is_out_of_memory(file.value)
    assert not is_out_of_memory(FileNotFoundError(2, "No such file or directory"))
    assert is_out_of_memory(torch.OutOfMemoryError("Allocation on device"))
    for text in (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "MPS backend out of memory (MPS allocated: 5 GB)",
    ):
        assert is_out_of_memory(RuntimeError(text))
    with pytest.raises(RuntimeError) as other:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(other.value)


def listen(trainer):
    """The warnings of a trainer, and what was still held when each was given."""
    told = []
    trainer.tell = lambda key, sentence: told.append((key, sentence))
    return told


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_step_is_made_again_and_equals_that_of_the_small_batch_to_the_last_bit(make, where):
    # The first batch of 4 passes, the second does not: both are computed again.
    stage = cramped(2, where=where, after=1)
    trainer, losses = make(4, 2, stage=stage, epochs=3)
    told = listen(trainer)
    trainer.train()
    small_trainer, small = make(2, 4, epochs=3)
    small_trainer.train()
    assert stage.made == [4, 4] + [2] * 12
    assert len(losses.values) == 3
    assert hexes(losses.values) == hexes(small.values)
    assert hexes(losses.norms) == hexes(small.norms)
    assert trainer.seen.tolist() == small_trainer.seen.tolist() == [3 * sum(LENGTHS), 3 * 91]
    ((key, sentence),) = told
    assert key == "per_device_train_batch_size"
    assert "4 examples (" in sentence
    assert "at once in step 1." in sentence
    assert "4 examples at a time become 2 examples, accumulation of 2 becomes 4" in sentence
    assert "per_device_train_batch_size 2 with gradient_accumulation_steps 4" in sentence


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_flattened_documents_are_halved_again_until_they_fit(make, where):
    stage = cramped(2, where=where)
    trainer, losses = make(8, 1, stage=stage, epochs=3, flat=True)
    told = listen(trainer)
    trainer.train()
    small_trainer, small = make(1, 8, epochs=3, flat=True)
    small_trainer.train()
    assert losses.values == pytest.approx(small.values, rel=2e-6)
    assert losses.norms == pytest.approx(small.norms, rel=2e-5)
    assert trainer.seen.tolist() == small_trainer.seen.tolist()
    assert trainer.train_parts.count == 2 ** len(told)
    assert max(stage.made[-trainer.train_parts.count :]) <= 2
    assert "8 examples (178 tokens)" in told[0][1]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_nothing_of_the_failed_step_is_held_and_no_gradient_is_left(make, where):
    stage = cramped(2, where=where)
    trainer, _ = make(4, 1, stage=stage, epochs=1)
    seen = []

    def tell(key, sentence):
        gradients = [name for name, weight in trainer.model.named_parameters() if weight.grad is not None]
        seen.append(([ref() for ref in stage.held], gradients))

    trainer.tell = tell
    trainer.train()
    assert seen == [([None], [])]


def test_dropout_draws_as_in_a_run_that_began_small(make):
    def run(**changes):
        trainer, losses = make(4, 1, epochs=3, **changes)
        for layer in trainer.model.model.layers:
            layer.self_attn.attention_dropout = 0.5
        return trainer, losses

    paused, losses = run(stage=cramped(2, where="backward"))
    listen(paused)
    paused.train()
    small, expected = run()
    small.train_parts.count = 2
    small.train()
    assert hexes(losses.values) == hexes(expected.values)


@pytest.mark.parametrize("flat", [False, True], ids=["padded", "flattened"])
def test_an_example_that_does_not_fit_alone_is_named(make, flat):
    class Short(SFT):
        def loss_sum(self, model, batch, label_smoothing=0.0, note=None):
            tokens = batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].numel()
            if tokens > 45:
                torch.empty(ABSURD, dtype=torch.uint8)
            return super().loss_sum(model, batch, label_smoothing, note)

    trainer, _ = make(8, 1, stage=Short, flat=flat)
    listen(trainer)
    with pytest.raises(DoesNotFitError) as raised:
        trainer.train()
    assert str(raised.value).startswith("Example 8 of 60 tokens does not fit in memory, even alone.")
    assert "cutoff_len below 60" in str(raised.value)
    assert "gradient_checkpointing" in str(raised.value)


@pytest.mark.parametrize("flat", [False, True], ids=["padded", "flattened"])
def test_evaluation_goes_on_in_smaller_parts(make, flat):
    plain, _ = make(1, 1, flat=flat, per_device_eval_batch_size=8)
    expected = plain.evaluate()["eval_loss"]
    trainer, _ = make(1, 1, stage=cramped(3), flat=flat, per_device_eval_batch_size=8)
    told = listen(trainer)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)
    assert {key for key, _ in told} == {"per_device_eval_batch_size"}
    assert "8 examples (178 tokens)" in told[0][1]
    assert trainer.eval_parts.count > 1
    assert trainer.train_parts.count == 1


def test_other_errors_are_not_taken_for_a_lack_of_memory(make):
    class Broken(SFT):
        def loss_sum(self, model, batch, label_smoothing=0.0, note=None):
            return torch.ones(2) @ torch.ones(3)

    trainer, _ = make(4, 1, stage=Broken)
    told = listen(trainer)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        trainer.train()
    assert not told


def cramp(monkeypatch, most, after=0):
    """Memory for so many documents in every session from here on."""
    stage = cramped(most, after=after)
    monkeypatch.setattr(SFT, "loss_sum", stage.loss_sum)
    return stage


def warnings_of(folder):
    return [event for event in RunReader(folder).events() if event["type"] == "warning"]


def test_a_run_says_so_goes_on_and_resumes_with_the_smaller_parts(make_run, monkeypatch, capsys):
    changes = {
        "lora_dropout": 0.2,
        "val_size": 0.25,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "max_steps": 8,
        "per_device_eval_batch_size": 2,
    }
    whole, stopped = make_run(**changes), make_run(**changes)
    with monkeypatch.context() as patch:
        # Two steps of two batches, an evaluation of three, one batch of step 3; then memory for one example only.
        cramp(patch, 1, after=8)
        run_attempt(whole, 1)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        cramp(patch, 1, after=8)
        stop_at(patch, stopped, 4)
        run_attempt(stopped, 1)
    said = capsys.readouterr().out
    training, evaluation = warnings_of(stopped)
    assert training["key"] == "per_device_train_batch_size"
    assert evaluation["key"] == "per_device_eval_batch_size"
    assert "at once in step 3." in training["message"]
    assert training["message"] in said
    counters = read_counters(Checkpoints(stopped).path(4))
    assert (counters["per_device_train_batch_size"], counters["gradient_accumulation_steps"]) == (1, 4)
    with monkeypatch.context() as patch:
        stage = cramp(patch, 1)
        assert next_attempt(stopped) == 0
    assert set(stage.made) == {1}
    assert len(warnings_of(stopped)) == 2
    assert read_status(stopped).state == "finished"
    for name in ("loss", "eval_loss", "tokens", "trained_tokens", "grad_norm"):
        here, there = (RunReader(folder).metrics() for folder in (stopped, whole))
        assert here.steps(name).tolist() == there.steps(name).tolist()
        assert hexes(here.values(name)) == hexes(there.values(name)), name


def test_a_run_whose_example_does_not_fit_fails_with_a_sentence(make_run, monkeypatch):
    folder = make_run()
    cramp(monkeypatch, 0)
    assert run_attempt(folder, 1) == 1
    final = read_status(folder)
    assert final.state == "failed"
    assert re.match(r"Example \d+ of \d+ tokens does not fit in memory, even alone\. Lower cutoff_len", final.reason)
    assert "Traceback" not in final.reason


def child(script, **environment):
    """Starts a script of this folder."""
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name(script)],
        env=os.environ | environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """Its exit code, the JSON on the last line of its output, and its errors."""
    try:
        out, errors = process.communicate(timeout=280)
    finally:
        process.kill()
    lines = out.strip().splitlines()
    return process.returncode, json.loads(lines[-1]) if lines else None, errors


def test_a_real_limit_on_memory(tmp_path):
    process = child("limited.py", HOME_OF_TEST=str(tmp_path), OMP_NUM_THREADS="1", MALLOC_MMAP_THRESHOLD_="65536")
    code, said, errors = ended(process)
    assert code == 0, errors
    assert said["told"], said
    assert said["parts"] == 2 ** len(said["told"])
    assert said["limited"] == pytest.approx(said["free"], rel=1e-5)
    assert said["seen"] == [16 * 1000, 16 * 500]


@pytest.mark.usefixtures("warm_python")
def test_two_processes_train_as_one_also_where_one_of_them_has_too_little_memory(make, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    ranks = [
        child(
            "ranks.py", HOME_OF_TEST=str(tmp_path), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port, OMP_NUM_THREADS="1",
        )
        for rank in range(2)
    ]  # fmt: skip
    trainer, losses = make(8, 1, flat=True)
    trainer.train()
    expected = trainer.evaluate()["eval_loss"]
    try:
        said = [ended(process) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    for code, answer, errors in said:
        assert answer is not None, (code, errors)
        assert answer["losses"] == pytest.approx(losses.values, rel=1e-5)
        assert answer["eval_loss"] == pytest.approx(expected, rel=1e-5)
        assert answer["seen"] == trainer.seen.tolist()
        assert answer["split"] == pytest.approx(losses.values, rel=1e-5)
        assert answer["split_seen"] == trainer.seen.tolist()
        assert answer["parts"] == 2
        ((key, sentence),) = answer["told"]
        assert key == "per_device_train_batch_size"
        assert re.match(
            r"Out of memory on 2 examples \(\d+ tokens\) at once in step 1, in process 1 of 2 \(counted from 0\)\. "
            r"This step is repeated, and every one after it, with each batch in 2 parts",
            sentence,
        )
    error = said[1][1]["error"]
    assert re.match(
        r"Example \d+ of \d+ tokens does not fit in memory, even alone, in process 1 of 2 \(counted from 0\)\.", error
    )
    assert "left" in said[0][1]


def test_a_part_without_a_token_to_learn_from_adds_nothing(make):
    trainer, losses = make(4, 2, flat=True, epochs=1)
    rows = [dict(row) for row in trainer.train_dataset]
    rows[0]["labels"] = [-100] * len(rows[0]["labels"])
    trainer.train_dataset = Dataset.from_list(rows)
    trainer.train_parts.count = 4
    trainer.train()
    whole, expected = make(8, 1, flat=True, epochs=1)
    whole.train_dataset = trainer.train_dataset
    whole.train()
    assert losses.values == pytest.approx(expected.values, rel=2e-6)
    assert losses.norms == pytest.approx(expected.norms, rel=2e-5)


def test_the_number_of_an_example_in_a_packed_row():
    rows = [
        {"examples": [{"input_ids": [1, 2], "index": 4}, {"input_ids": [3], "index": 9}]},
        {"examples": [{"input_ids": [5, 6, 7], "index": 2}]},
    ]
    for ids, name in (([5, 6, 7], "Example 3"), ([3], "Example 10"), ([8], "One example")):
        error = single_example_error(
            {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}, rows, checkpointed=True
        )
        assert error.message == f"{name} of {len(ids)} tokens does not fit in memory, even alone."
        assert error.what_to_do.startswith("Lower cutoff_len, or use a smaller model.")


def test_memory_that_lacks_outside_of_a_step_is_no_matter_of_the_batch():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(ABSURD, dtype=torch.uint8)
    model = {"model_name_or_path": "m", "dataset": "d", "stage": "sft"}
    for method, remedy in (
        ({"finetuning_type": "full"}, "Set finetuning_type: lora, or use a smaller model."),
        ({"finetuning_type": "lora"}, "Set quantization_bit: 4, or use a smaller model."),
        ({"finetuning_type": "lora", "quantization_bit": 4}, "Lower lora_rank, or use a smaller model."),
    ):
        failure = explain_failure(raised.value, RunConfig.load(model | method))
        assert failure.reason == f"Out of memory besides the examples of a step. {remedy}"
        assert (failure.exit_code, failure.expected) == (1, True)
