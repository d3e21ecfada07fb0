"""The Trainer subclass: its contract with transformers, and the weighting by tokens."""

import inspect

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from llf_core.data import Collator
from llf_core.stages.sft import SFT
from llf_core.stages.trainer import RunTrainer, supervised_tokens

SIGNATURES = {
    "create_scheduler": ["self", "num_training_steps", "optimizer"],
    "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
    "get_batch_samples": ["self", "epoch_iterator", "num_batches", "device"],
    "evaluation_loop": [
        "self", "dataloader", "description", "prediction_loss_only", "ignore_keys", "metric_key_prefix",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_transformers_still_has_what_we_override(name):
    assert list(inspect.signature(getattr(Trainer, name)).parameters) == SIGNATURES[name]


def test_only_public_methods_are_overridden():
    ours = {name for name, value in vars(RunTrainer).items() if callable(value) and not name.startswith("__")}
    assert ours == set(SIGNATURES)
    assert hasattr(Trainer, "loss_is_scaled_for_ga")


def test_the_first_label_is_predicted_by_nothing():
    assert supervised_tokens(torch.tensor([[3, 4, -100], [-100, -100, 5]])).item() == 2


class Losses(TrainerCallback):
    def __init__(self):
        self.values = []

    def on_log(self, args, state, control, logs=None, **_):
        self.values += [logs["loss"]] if "loss" in logs else []


@pytest.fixture
def rows():
    """Eight examples of very different lengths, so that a mean of means would differ from a mean over tokens."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for index, length in enumerate([4, 40, 6, 33, 5, 21, 9, 60]):
        ids = torch.randint(5, 60, (length,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :], "index": index})
    return Dataset.from_list(made)


def test_warmup_stable_decay_needs_no_lengths(tiny_model_dir, tiny_tokenizer, rows, tmp_path):
    # 9 steps: none to warm up, a third (3) stable, the rest (6) decaying.
    trainer = RunTrainer(
        stage=SFT,
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


def train(model_dir, tokenizer, rows, tmp_path, *, batch, accumulation, epochs=2):
    torch.manual_seed(0)
    losses = Losses()
    trainer = RunTrainer(
        stage=SFT,
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        args=TrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
            num_train_epochs=epochs, logging_steps=1, learning_rate=1e-2, use_cpu=True, disable_tqdm=True,
            report_to="none", save_strategy="no", remove_unused_columns=False, label_names=["labels"],
            max_grad_norm=0.0, seed=3, lr_scheduler_type="constant", optim="sgd",
        ),
        train_dataset=rows, eval_dataset=rows, data_collator=Collator(tokenizer), callbacks=[losses],
    )  # fmt: skip
    trainer.train()
    return trainer, losses.values


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
