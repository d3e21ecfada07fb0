"""What of a config reaches the Trainer, and what never does."""

import yaml
from transformers import TrainingArguments

from llf_core.config import RunConfig
from llf_core.models import DevicePlan
from llf_core.runs import create_run
from llf_core.training.make_trainer import training_arguments

PLAN = DevicePlan("cpu", "float32", None, 1, "")


def made(**changes):
    config = RunConfig.load(yaml.safe_dump({"dataset": "llf_demo", "stage": "sft"} | changes))
    return training_arguments(config, PLAN, create_run(config.yaml(), "arguments"), evaluates=False)


def test_several_gpus_never_make_the_trainer_cut_batches_over_them(monkeypatch):
    set_up = TrainingArguments.__post_init__

    def with_four_gpus(self):
        set_up(self)
        self._n_gpu = 4

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_four_gpus)
    arguments = made(per_device_train_batch_size=3)
    assert arguments.n_gpu == 1
    assert arguments.train_batch_size == 3


def test_noise_on_embeddings_is_ours_alone():
    assert made(neftune_noise_alpha=5.0).neftune_noise_alpha is None
