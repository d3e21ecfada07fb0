"""Out of memory in a step: the same step in smaller parts, with the results of a run that began with them."""

import pytest
import torch

from llf_core.stages.pause import DoesNotFitError, is_out_of_memory
from llf_core.stages.sft import SFT
from tests.core.stages.cramped import ABSURD, cramped
from tests.core.stages.small_trainer import LENGTHS, examples, make_trainer


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
        @staticmethod
        def loss_sum(model, batch, label_smoothing=0.0):
            tokens = batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].numel()
            if tokens > 45:
                torch.empty(ABSURD, dtype=torch.uint8)
            return SFT.loss_sum(model, batch, label_smoothing)

    trainer, _ = make(8, 1, stage=Short, flat=flat)
    listen(trainer)
    with pytest.raises(DoesNotFitError) as raised:
        trainer.train()
    assert str(raised.value).startswith("Example 7 of 60 tokens does not fit into the memory even alone.")
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
        @staticmethod
        def loss_sum(model, batch, label_smoothing=0.0):
            return torch.ones(2) @ torch.ones(3)

    trainer, _ = make(4, 1, stage=Broken)
    told = listen(trainer)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        trainer.train()
    assert not told
