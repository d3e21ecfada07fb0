"""Converts a run's config to `transformers.TrainingArguments`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from llf_core.config import fields
from llf_core.config.registry import optimizer_of
from llf_core.config.rules.conditions import shards_weights

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.models import DevicePlan
    from llf_core.runs import RunFolder


class ShardedArguments(TrainingArguments):  # type: ignore[misc]  # transformers ships no types
    """Arguments of a run whose model `llf_core.stages.base.sharding.shard` puts on the devices."""

    @property
    def place_model_on_device(self) -> bool:
        """False: the Trainer leaves the model where it was loaded, since a device may not hold all of it."""
        return False


def training_arguments(  # noqa: PLR0913 - what the run's folder and device decide
    config: RunConfig,
    plan: DevicePlan,
    folder: RunFolder,
    *,
    evaluates: bool,
    resume_from: str | None = None,
    max_steps: int | None = None,
    kind: type[TrainingArguments] = TrainingArguments,
    **more: Any,
) -> TrainingArguments:
    """Build the Trainer's arguments from the config's training section and the run folder.

    Features that this project has itself are disabled in the Trainer: checkpoint rotation (it waits until a
    checkpoint is complete), NEFTune, gradient checkpointing, and the NaN filter of the log, since a NaN must be
    visible. As with every `TrainingArguments`, accelerate's state of this process is reset.

    Args:
        folder: checkpoints are saved there, whatever `output_dir` is.
        resume_from: path of the checkpoint to resume from.
        max_steps: last step, if it was changed; None for that of the config.
    """
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    values: dict[str, Any] = {spec.key: config.get(spec.key) for spec in fields() if spec.key in known}
    values["report_to"] = list(values["report_to"])
    if max_steps is not None:
        values["max_steps"] = max_steps
    if not evaluates:
        values["eval_strategy"] = "no"
    values |= {
        "output_dir": str(folder.checkpoints),
        "resume_from_checkpoint": resume_from,
        "save_total_limit": None,
        "use_cpu": plan.device == "cpu",
        "bf16": plan.autocast == "bfloat16",
        "fp16": plan.autocast == "float16",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "prediction_loss_only": True,
        "dataloader_pin_memory": plan.device == "cuda" and values.get("dataloader_pin_memory", True),
        "push_to_hub": False,
    }
    if config.data.streaming:
        # Each rank reads the stream and takes its share. The Trainer's own way would split batches at their first
        # dimension, which flattened ones do not have, and loading processes would each read everything.
        values |= {"dataloader_num_workers": 0, "dataloader_persistent_workers": False}
        values |= {"dataloader_prefetch_factor": None}
        values["accelerator_config"] = (values["accelerator_config"] or {}) | {"dispatch_batches": False}
    # Checkpointing is enabled on the model before, where it is known which layers are frozen.
    values.pop("gradient_checkpointing", None)
    values.pop("gradient_checkpointing_kwargs", None)
    # The Trainer's NEFTune would scale its noise as if a flattened batch were one document.
    values.pop("neftune_noise_alpha", None)
    if optimizer_of(config).implementation:
        values.pop("optim")  # `TrainingLoop.create_optimizer` builds it
    if optimizer_of(config).layerwise(config):
        values["max_grad_norm"] = 0.0  # when a step ends, no gradients are left to clip
    if kind is TrainingArguments and shards_weights(config):
        kind = ShardedArguments
    arguments = kind(**(values | more))
    # A process trains on one GPU: `torch.nn.DataParallel`, which the Trainer would use for several, splits batches
    # anywhere and cannot split flattened ones. (The Trainer sets this attribute itself where a model spans GPUs.)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001
    return arguments
