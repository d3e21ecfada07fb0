"""A `RunTrainer` over eight examples and a tiny real Llama, made inside a test."""

import itertools

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback, TrainingArguments

from llf_core.acceleration.patching.causal_head import install_head
from llf_core.data import Collator
from llf_core.stages.sft import SFT
from llf_core.training.trainer import RunTrainer

LENGTHS = (4, 40, 6, 33, 5, 21, 9, 60)


class Losses(TrainerCallback):
    """Keeps the losses and gradient norms of all logged steps."""

    def __init__(self):
        self.values = []
        self.norms = []

    def on_log(self, args, state, control, logs=None, **_):
        self.values += [logs["loss"]] if "loss" in logs else []
        self.norms += [logs["grad_norm"]] if "grad_norm" in logs else []


def examples(lengths=LENGTHS):
    """Examples of very different lengths, so that a mean of means would differ from a mean over tokens."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for index, length in enumerate(lengths):
        ids = torch.randint(5, 60, (length,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :], "index": index})
    return Dataset.from_list(made)


def flatten(features):
    """A flattened batch, written a second time: one document after the other, nothing padded."""
    ends = list(itertools.accumulate((len(f["input_ids"]) for f in features), initial=0))
    cu = torch.tensor(ends, dtype=torch.int32)
    return {
        "input_ids": torch.tensor([[t for f in features for t in f["input_ids"]]]),
        "labels": torch.tensor([[t for f in features for t in (-100, *f["labels"][1:])]]),
        "position_ids": torch.tensor([[i for f in features for i in range(len(f["input_ids"]))]]),
        "cu_seq_lens_q": cu,
        "cu_seq_lens_k": cu,
        "max_length_q": max(len(f["input_ids"]) for f in features),
        "max_length_k": max(len(f["input_ids"]) for f in features),
    }


def make_trainer(model_dir, tokenizer, rows, tmp_path, *, batch, accumulation, epochs=2, flat=False, **changes):
    """A trainer of plain gradient descent and the callback that keeps its losses; `changes` are its arguments."""
    torch.manual_seed(0)
    losses = Losses()
    stage = changes.pop("stage", SFT)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    assert install_head(model) is None
    arguments = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation,
        "num_train_epochs": epochs, "logging_steps": 1, "learning_rate": 1e-2, "use_cpu": True, "disable_tqdm": True,
        "report_to": "none", "save_strategy": "no", "remove_unused_columns": False, "label_names": ["labels"],
        "max_grad_norm": 0.0, "seed": 3, "lr_scheduler_type": "constant", "optim": "sgd", "prediction_loss_only": True,
    } | changes  # fmt: skip
    trainer = RunTrainer(
        stage=stage() if isinstance(stage, type) else stage,
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=flatten if flat else Collator(tokenizer),
        callbacks=[losses],
    )
    return trainer, losses


def train(*args, **kwargs):
    """Trains; returns the trainer and its losses."""
    trainer, losses = make_trainer(*args, **kwargs)
    trainer.train()
    return trainer, losses.values
