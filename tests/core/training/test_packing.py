"""Training on packed rows: the same losses as on the examples themselves, and the same order after a resume."""

import numpy as np
import pytest
import torch
import yaml
from transformers import MambaConfig, MambaForCausalLM

from llf_core.data import Collator, PackedRows
from llf_core.runs import RunReader, read_status
from llf_core.training.session import run_attempt
from tests.core.training.small_trainer import LENGTHS, examples, make_trainer
from tests.core.training.test_session import next_attempt, stop_at

CAPACITY = 64


@pytest.fixture
def train(tiny_model_dir, tiny_tokenizer, tmp_path):
    """`train(rows, flatten, **arguments) -> (losses, first ids of the documents of each batch)`."""

    def run(rows, *, flatten, resume=None, **arguments):
        trainer, losses = make_trainer(tiny_model_dir, tiny_tokenizer, rows, tmp_path / "out", **arguments)
        collate, batches = Collator(tiny_tokenizer, flatten=flatten), []

        def noted(features):
            batches.append([one["index"] for row in features for one in row.get("examples", (row,))])
            return collate(features)

        trainer.data_collator = noted
        trainer.train(resume_from_checkpoint=resume)
        return losses.values, batches

    return run


def packed(lengths=LENGTHS, capacity=CAPACITY):
    return PackedRows.of(examples(lengths), np.array(lengths, dtype=np.int64), capacity, seed=0)


def test_a_step_of_packed_rows_has_the_loss_of_its_examples(train):
    rows = packed()
    assert len(rows) == 3  # 60 + 4, 40 + 21, 33 + 9 + 6 + 5
    # 178 tokens, three steps of everything: the second and third see the gradients of those before.
    padded, _ = train(examples(), flatten=False, batch=8, accumulation=1, epochs=3)
    together, batches = train(rows, flatten=True, batch=3, accumulation=1, epochs=3)
    accumulated, _ = train(rows, flatten=True, batch=1, accumulation=3, epochs=3)
    assert [sorted(batch) for batch in batches] == [list(range(8))] * 3
    assert together == pytest.approx(padded, rel=1e-6)
    assert accumulated == pytest.approx(padded, rel=1e-6)


def test_a_resumed_trainer_meets_the_same_rows_in_the_same_order(train, tmp_path):
    lengths = [3 + (5 * number) % 29 for number in range(60)]
    rows, arguments = packed(lengths), {"batch": 2, "accumulation": 2, "epochs": 3}
    whole, order = train(rows, flatten=True, save_strategy="steps", save_steps=3, **arguments)
    assert len(whole) > 6
    resumed, again = train(
        rows, flatten=True, resume=str(tmp_path / "out" / "checkpoint-6"), save_strategy="no", **arguments
    )
    assert [value.hex() for value in resumed] == [value.hex() for value in whole[6:]]
    assert again == order[-len(again) :]
    per_epoch = -(-len(rows) // 2)
    epochs = [order[start : start + per_epoch] for start in range(0, len(order), per_epoch)]
    assert [sorted(number for batch in epoch for number in batch) for epoch in epochs] == [list(range(60))] * 3
    assert epochs[0] != epochs[1]


def test_evaluation_of_flattened_batches_has_the_loss_of_padded_ones(tiny_model_dir, tiny_tokenizer, tmp_path):
    trainer, _ = make_trainer(tiny_model_dir, tiny_tokenizer, examples(), tmp_path, batch=8, accumulation=1)
    values = []
    for flatten in (False, True):
        for size in (1, 3, 8):
            trainer.data_collator = Collator(tiny_tokenizer, flatten=flatten)
            trainer.args.per_device_eval_batch_size = size
            values.append(trainer.evaluate()["eval_loss"])
    assert values == pytest.approx([values[0]] * 6, rel=1e-6)


def test_one_document_never_moves_the_loss_of_another(tiny_model_dir, tiny_tokenizer, tmp_path):
    trainer, _ = make_trainer(tiny_model_dir, tiny_tokenizer, packed(), tmp_path, batch=1, accumulation=1)
    first, second = list(examples())[1:3]
    other = second | {"input_ids": [7] * len(second["input_ids"])}
    losses = []
    for neighbour in (second, other):
        # The neighbour is only read: its labels teach nothing.
        row = {"examples": [neighbour | {"labels": [-100] * len(neighbour["labels"])}, first]}
        batch = Collator(tiny_tokenizer, flatten=True)([row])
        with torch.no_grad():
            losses.append(trainer.stage.loss_sum(trainer.model, batch).item())
    assert losses[0] == losses[1]


RUN = {"bf16": False, "use_cpu": True, "max_steps": 4}


def logged(folder, name="loss"):
    return RunReader(folder).metrics().values(name)


def test_a_packed_run_learns_as_one_without_packing_and_says_how_full_its_rows_are(trained):
    alone, _ = trained(**RUN, per_device_train_batch_size=24, gradient_accumulation_steps=1)
    runs = [
        trained(**RUN, packing=True, per_device_train_batch_size=size, gradient_accumulation_steps=24 // size)
        for size in (24, 1)
    ]
    for folder, code in runs:
        assert code == 0, read_status(folder).reason
        # The first loss is one forward; later ones went through AdamW, which makes gradients of 1e-9 as large as any.
        assert logged(folder)[0] == pytest.approx(logged(alone)[0], rel=1e-6)
        assert logged(folder) == pytest.approx(logged(alone), rel=1e-4)
        for name in ("tokens", "trained_tokens"):
            assert logged(folder, name).tolist() == logged(alone, name).tolist()
        (data,) = [event for event in RunReader(folder).events() if event["type"] == "data"]
        assert data["examples"] == 24
        assert 1 < data["rows"] < 12
        resolved = yaml.safe_load(folder.resolved.read_text())["data"]
        assert (resolved["examples"], resolved["rows"]) == (24, data["rows"])


def test_a_packed_run_goes_on_to_the_last_bit(trained, make_run, monkeypatch):
    changes = {
        "packing": True,
        "cutoff_len": 64,
        "max_steps": 9,
        "val_size": 4,
        "eval_strategy": "steps",
        "eval_steps": 3,
    }
    whole, _ = trained(**changes)
    folder = make_run(**changes)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 5)
        assert run_attempt(folder, 1) == 0
    assert read_status(folder).state == "stopped"
    assert next_attempt(folder) == 0
    for name in ("loss", "eval_loss", "tokens"):
        assert [value.hex() for value in logged(folder, name)] == [value.hex() for value in logged(whole, name)]


def test_packing_for_a_model_with_a_running_state_fails_with_the_reason(trained, tiny_tokenizer, tmp_path):
    model = MambaForCausalLM(
        MambaConfig(vocab_size=len(tiny_tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    model.save_pretrained(tmp_path / "mamba")
    tiny_tokenizer.save_pretrained(tmp_path / "mamba")
    folder, code = trained(packing=True, model_name_or_path=str(tmp_path / "mamba"), finetuning_type="full")
    reason = read_status(folder).reason
    assert code == 2
    assert reason.startswith("`packing` is true, but with this model the examples of a row would attend to each other.")
    assert "Mamba" in reason
    assert reason.endswith("Expected `packing: false`: each example then has its own row.")
