"""The Trainer subclass: its contract with transformers, and the weighting by tokens."""

import inspect

import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from llf_core.data import Collator
from llf_core.data.collate import token_count, trained_token_count
from llf_core.stages.base.loop import TrainingLoop
from llf_core.stages.sft import SFT
from llf_core.training.trainer import RunTrainer
from tests.core.training.small_trainer import examples, flatten, train

SIGNATURES = {
    "create_optimizer": ["self", "model"],
    "create_scheduler": ["self", "num_training_steps", "optimizer"],
    "set_initial_training_values": ["self", "args", "dataloader"],
    "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
    "log": ["self", "logs", "start_time"],
    "get_train_dataloader": ["self"],
    "get_eval_dataloader": ["self", "eval_dataset"],
    "get_batch_samples": ["self", "epoch_iterator", "num_batches", "device"],
    "save_model": ["self", "output_dir", "_internal_call"],
    "evaluate": ["self", "eval_dataset", "ignore_keys", "metric_key_prefix"],
    "evaluation_loop": [
        "self", "dataloader", "description", "prediction_loss_only", "ignore_keys", "metric_key_prefix",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_transformers_still_has_what_we_override(name):
    assert list(inspect.signature(getattr(Trainer, name)).parameters) == SIGNATURES[name]


def test_only_public_methods_are_overridden():
    own = [pair for kind in (RunTrainer, TrainingLoop) for pair in vars(kind).items()]
    ours = {name for name, value in own if callable(value) and not name.startswith("__")}
    assert {name for name in ours if hasattr(Trainer, name)} == set(SIGNATURES)
    added = {
        "set_learning_rate",
        "end_at",
        "_follow_schedule",
        "_note",
        "_sums",
        "_loaders",
        "_measure_again",
        "_count",
        "_keep_examples",
        "_record",
    }
    added |= {
        "planned_rates",
        "_parameter_groups",
        "use_result_weights",
        "_with_extra_losses",
        "_average_gradients",
        "_compare_ranks",
    }
    assert ours - set(SIGNATURES) == {*added, "save_checkpoint"}
    saving = inspect.signature(Trainer._save_checkpoint).parameters  # what `save_checkpoint` calls
    assert list(saving) == ["self", "model", "trial"]


def test_what_transformers_plans_is_what_is_taken_apart():
    """Epochs first and steps last, see `RunTrainer.set_initial_training_values`."""
    source = inspect.getsource(Trainer.set_initial_training_values)
    returned = source.rpartition("return (")[2].replace(",", " ").split()
    assert (returned[0], returned[-2:]) == ("num_train_epochs", ["max_steps", ")"])
    assert hasattr(Trainer, "loss_is_scaled_for_ga")


def test_the_first_label_is_predicted_by_nothing():
    assert trained_token_count({"labels": torch.tensor([[3, 4, -100], [-100, -100, 5]])}).item() == 2


@pytest.fixture
def rows():
    return examples()


def test_warmup_stable_decay_needs_no_lengths(tiny_model_dir, tiny_tokenizer, rows, tmp_path):
    # 9 steps: none to warm up, a third (3) stable, the rest (6) decaying.
    trainer = RunTrainer(
        stage=SFT(),
        model=AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        args=TrainingArguments(output_dir=str(tmp_path), lr_scheduler_type="warmup_stable_decay", use_cpu=True),
        data_collator=Collator(tiny_tokenizer),
        train_dataset=rows,
    )
    trainer.create_optimizer()
    schedule = trainer.create_scheduler(9)
    rates = []
    for _ in range(9):
        rates.append(schedule.get_last_lr()[0] / 5e-5)
        trainer.optimizer.step()
        schedule.step()
    assert rates[:4] == [1.0] * 4
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert schedule.get_last_lr()[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("warmup", "rates"), [(3, [0, 1 / 3, 2 / 3]), (0.99, [0, 1 / 3, 2 / 3]), (1, [0, 1, 1 / 2])])
def test_a_polynomial_schedule_may_warm_up_in_all_steps(tiny_model_dir, tiny_tokenizer, rows, tmp_path, warmup, rates):
    trainer = RunTrainer(
        stage=SFT(),
        model=AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        args=TrainingArguments(
            output_dir=str(tmp_path),
            lr_scheduler_type="polynomial",
            lr_scheduler_kwargs={"lr_end": 0.0},
            warmup_steps=warmup,
            use_cpu=True,
        ),
        data_collator=Collator(tiny_tokenizer),
        train_dataset=rows,
    )
    trainer.create_optimizer()
    schedule = trainer.create_scheduler(3)
    made = []
    for _ in range(3):
        made.append(schedule.get_last_lr()[0] / 5e-5)
        trainer.optimizer.step()
        schedule.step()  # after the last step too, as the Trainer does
    assert made == pytest.approx(rates)
    assert trainer.args.warmup_steps == warmup


def test_accumulation_gives_the_large_batch_loss(tiny_model_dir, tiny_tokenizer, rows, tmp_path):
    _, whole = train(tiny_model_dir, tiny_tokenizer, rows, tmp_path / "a", batch=8, accumulation=1)
    _, split = train(tiny_model_dir, tiny_tokenizer, rows, tmp_path / "b", batch=2, accumulation=4)
    assert len(whole) == 2
    assert split == pytest.approx(whole, rel=1e-5)


def test_loss_is_the_mean_over_tokens_of_a_plain_forward(tiny_model_dir, tiny_tokenizer, rows, tmp_path):
    trainer, losses = train(tiny_model_dir, tiny_tokenizer, rows, tmp_path, batch=4, accumulation=2, epochs=1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()
    total, count = 0.0, 0
    for row in rows:
        ids, labels = (torch.tensor([row[key]]) for key in ("input_ids", "labels"))
        logprobs = torch.log_softmax(model(ids).logits.double(), -1)[0, :-1]
        targets = labels[0, 1:]
        total -= sum(logprobs[i, t].item() for i, t in enumerate(targets.tolist()) if t != -100)
        count += (targets != -100).sum().item()
    assert losses == pytest.approx([total / count], rel=1e-5)
    assert trainer.seen.tolist() == [sum(len(row["input_ids"]) for row in rows), count]


def test_evaluation_is_the_mean_over_tokens_whatever_the_batch(tiny_model_dir, tiny_tokenizer, rows, tmp_path):
    trainer, _ = train(tiny_model_dir, tiny_tokenizer, rows, tmp_path, batch=8, accumulation=1, epochs=1)
    values = []
    for batch in (1, 3, 8):
        trainer.args.per_device_eval_batch_size = batch
        values.append(trainer.evaluate()["eval_loss"])
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


def test_flattened_and_padded_batches_give_the_same_losses_and_counts(tiny_model_dir, tiny_tokenizer, rows, tmp_path):
    padded, losses = train(tiny_model_dir, tiny_tokenizer, rows, tmp_path / "a", batch=4, accumulation=1)
    flat, same = train(tiny_model_dir, tiny_tokenizer, rows, tmp_path / "b", batch=4, accumulation=1, flat=True)
    assert same == pytest.approx(losses, rel=1e-5)
    assert flat.seen.tolist() == padded.seen.tolist()
    evaluated = [trainer.evaluate()["eval_loss"] for trainer in (padded, flat)]
    assert evaluated[1] == pytest.approx(evaluated[0], rel=1e-5)


def test_tokens_read_by_hand():
    features = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8, 9], "labels": [8, 9]}]
    assert token_count(flatten(features)).item() == 5
    assert token_count({"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}).item() == 5
    assert trained_token_count(flatten(features)).item() == 3
