"""The loss of each example is written down as it is trained on: the real trainer, the real model."""

import json
import random
import string

import numpy as np
import pytest
import torch

from llf_core.runs import RunReader
from llf_core.runs.metric_columns import ExampleLosses
from llf_core.stages.sft import SFT
from tests.core.training.cramped import cramped


def read(folder):
    losses = ExampleLosses(folder)
    losses.refresh()
    return losses


def records(folder):
    return [json.loads(line) for line in folder.examples.read_text().splitlines()]


BATCHES = {
    "flattened": {},
    "padded": {"fast_path": False},
    "packed": {"packing": True, "cutoff_len": 128, "per_device_train_batch_size": 1},
}


@pytest.mark.parametrize("kind", BATCHES)
def test_the_losses_of_a_step_add_up_to_its_loss(trained, kind):
    folder, code = trained(max_steps=4, use_cpu=True, **BATCHES[kind])
    assert code == 0
    columns = RunReader(folder).metrics()
    for record, step, loss in zip(records(folder), columns.steps("loss"), columns.values("loss"), strict=True):
        assert record["step"] == step
        total = sum(mean * count for mean, count in zip(record["loss"], record["tokens"], strict=True))
        assert total / sum(record["tokens"]) == pytest.approx(loss, rel=1e-4)


def test_each_example_is_seen_once_an_epoch(trained):
    folder, _ = trained(max_steps=None, num_train_epochs=2.0, save_strategy="no")
    found = read(folder).all()
    assert [one.number for one in found] == list(range(24))
    assert {one.seen for one in found} == {2}


def test_numbers_are_those_of_the_prepared_set_where_some_are_held_out(trained):
    folder, _ = trained(max_steps=None, num_train_epochs=1.0, val_size=0.25, save_strategy="no")
    numbers = [one.number for one in read(folder).all()]
    assert len(numbers) == 18
    assert set(numbers) < set(range(24))


def test_they_are_the_losses_of_a_plain_forward(tiny_model_dir):
    """By `cross_entropy` over each document alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 90, (3, 8), generator=generator)
    labels = ids.clone()
    labels[0, :5] = -100
    labels[1, 3:] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    heard = []
    SFT().loss_sum(model, batch, 0.0, lambda *noted: heard.append(noted))
    ((losses, tokens),) = heard
    logits = model(input_ids=ids).logits[:, :-1]
    plain = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none").sum(1)
    torch.testing.assert_close(losses, plain.detach(), rtol=1e-5, atol=1e-5)
    assert tokens.tolist() == [3, 2, 7]


def test_what_is_computed_again_in_smaller_parts_is_written_down_once(make_run, monkeypatch):
    from llf_core.training.session import run_attempt

    folder = make_run(max_steps=3, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    monkeypatch.setattr(SFT, "loss_sum", cramped(2, after=1).loss_sum)
    assert run_attempt(folder, 1) == 0
    for record in records(folder):
        assert len(record["number"]) == len(set(record["number"])) == 8


def test_corrupt_rows_top_the_list(trained, tmp_path):
    """Ten rows of a thousand have an answer of random letters. In the first steps every answer is as good as random."""
    chance = random.Random(0)
    corrupt = set(chance.sample(range(1000), 10))
    rows = []
    for number in range(1000):
        a, b = chance.randrange(10), chance.randrange(10)
        answer = f"It is number {a + b}."
        if number in corrupt:
            answer = "".join(chance.choices(string.ascii_letters, k=len(answer)))
        rows.append({"instruction": f"What is {a} plus {b}?", "output": answer})
    path = tmp_path / "thousand.json"
    path.write_text(json.dumps(rows))
    folder, code = trained(
        dataset=str(path), max_steps=None, num_train_epochs=2.0, per_device_train_batch_size=10,
        gradient_accumulation_steps=1, finetuning_type="full", learning_rate=3e-3, save_strategy="no",
    )  # fmt: skip
    assert code == 0
    losses = read(folder)
    assert {one.number for one in losses.outliers("hardest")[:10]} == corrupt
    assert corrupt <= {one.number for one in losses.outliers("odd")}
    assert np.isfinite([one.last for one in losses.all()]).all()
