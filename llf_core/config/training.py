from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from llf_core.config.option import Names, Object, Section, Steps, option

TRACKERS = (
    "none",
    "all",
    "tensorboard",
    "wandb",
    "mlflow",
    "swanlab",
    "trackio",
    "clearml",
    "codecarbon",
    "comet_ml",
    "dagshub",
    "dvclive",
    "flyte",
    "neptune",
    "azure_ml",
)

MOST_PROCESSES = 256
"""Maximum number of loading processes; each has the memory of a Python with torch."""
COMPILERS = (
    "inductor",
    "eager",
    "aot_eager",
    "aot_ts_nvfuser",
    "nvprims_nvfuser",
    "cudagraphs",
    "ofi",
    "fx2trt",
    "onnxrt",
    "tensorrt",
    "aot_torchxla_trace_once",
    "torchxla_trace_once",
    "tvm",
    "hpu_backend",
    "neuron",
)
"""Back ends of torch.compile that accelerate takes."""
COMPILER_MODES = ("default", "lite", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class Training(Section):
    """Arguments of the training loop."""

    output_dir: str | None = option(
        None,
        unset="nowhere",
        label="Copy the result to",
        help=(
            "Folder that receives a copy of the tuned model at the end and replaces an earlier copy. A folder with "
            "other files is refused."
        ),
        level="basic",
        source="Hugging Face",
        path="folder",
    )
    num_train_epochs: float = option(
        3.0,
        label="Epochs",
        help="Passes over the training data. `max_steps` overrides it.",
        above=0,
        level="basic",
        source="Hugging Face",
    )
    max_steps: int = option(
        -1,
        unset="all epochs",
        label="Steps",
        help="Number of optimizer steps; overrides the epochs. -1 trains all epochs.",
        minimum=-1,
        level="basic",
        source="Hugging Face",
    )
    per_device_train_batch_size: int = option(
        8,
        label="Batch size",
        help="Examples per device and micro-batch.",
        unit="examples",
        minimum=1,
        level="basic",
        source="Hugging Face",
    )
    gradient_accumulation_steps: int = option(
        1,
        label="Gradient accumulation",
        help="Micro-batches per optimizer step. The result is that of one large batch.",
        unit="batches",
        minimum=1,
        level="basic",
        source="Hugging Face",
    )
    per_device_eval_batch_size: int = option(
        8,
        label="Evaluation batch size",
        help="Examples per device and evaluation batch.",
        unit="examples",
        minimum=1,
        source="Hugging Face",
    )
    label_smoothing_factor: float = option(
        0.0,
        label="Label smoothing",
        help="Share of the target probability that is spread over the vocabulary.",
        minimum=0,
        below=1,
        source="Hugging Face",
    )
    seed: int = option(
        42,
        label="Seed",
        help="Seed of all random numbers. The same seed repeats a run.",
        minimum=0,
        maximum=2**32 - 1,
        level="basic",
        source="Hugging Face",
    )
    data_seed: int | None = option(
        None,
        unset="auto: {seed}",
        label="Data seed",
        help="Seed of the examples' order. Default: the seed.",
        minimum=0,
        maximum=2**32 - 1,
        source="Hugging Face",
    )
    full_determinism: bool = option(
        False,
        label="Fully deterministic",
        help="Uses only deterministic operations. Slower on a GPU.",
        source="Hugging Face",
    )
    # -- precision and speed
    bf16: bool = option(
        False,
        label="bf16",
        help="Trains in bfloat16 mixed precision. Off: the device decides by what is faster.",
        source="Hugging Face",
    )
    fp16: bool = option(
        False,
        label="fp16",
        help="Trains in float16 mixed precision, for GPUs without bfloat16.",
        source="Hugging Face",
    )
    pure_bf16: bool = option(
        False,
        label="Pure bf16",
        help="Keeps weights and optimizer state in bfloat16 too. Half the memory; small updates may be lost.",
        source="LLaMA-Factory",
    )
    tf32: bool | None = option(
        None,
        unset="PyTorch's default",
        label="tf32",
        help="Allows TF32 for float32 matrix products on NVIDIA GPUs.",
        source="Hugging Face",
    )
    use_cpu: bool = option(
        False,
        label="Use the CPU",
        help="Trains on the CPU even if there is a GPU.",
        source="Hugging Face",
    )
    gradient_checkpointing: bool | None = option(
        None,
        unset="if memory is short",
        label="Gradient checkpointing",
        help=(
            "Recomputes activations in the backward pass to save memory. A third slower. Default: only if memory is "
            "short."
        ),
        source="Hugging Face",
    )
    gradient_checkpointing_kwargs: Object | None = option(
        None,
        unset="none",
        label="Checkpointing options",
        help="Further arguments of gradient checkpointing.",
        source="Hugging Face",
    )
    fast_path: bool = option(
        True,
        label="Fast path",
        help=(
            "Uses faster implementations of the model's modules and batches without padding. Off: the plain model, "
            "for comparison."
        ),
    )
    torch_compile: bool = option(
        False,
        label="Compile",
        help="Compiles the model with torch.compile. The first step takes minutes, later ones are faster.",
        source="Hugging Face",
    )
    torch_compile_backend: str | None = option(
        None,
        unset="PyTorch's default",
        label="Compiler",
        help="Back end of torch.compile, such as `inductor`.",
        choices=COMPILERS,
        source="Hugging Face",
    )
    torch_compile_mode: str | None = option(
        None,
        unset="PyTorch's default",
        label="Compiler mode",
        help="Mode of torch.compile, such as `reduce-overhead`.",
        choices=COMPILER_MODES,
        source="Hugging Face",
    )
    torch_empty_cache_steps: int | None = option(
        None,
        unset="never",
        label="Empty the cache every",
        help="Frees unused GPU memory after this many steps. Slower.",
        unit="steps",
        minimum=1,
        source="Hugging Face",
    )
    # -- evaluation
    eval_strategy: Literal["no", "steps", "epoch"] = option(
        "no",
        label="Evaluate",
        help="When to evaluate on the validation data.",
        choices=("no", "steps", "epoch"),
        level="basic",
        source="Hugging Face",
    )
    eval_steps: Steps | None = option(
        None,
        unset="never",
        label="Evaluate every",
        help="Steps between evaluations. Below 1: a share of all steps. Default: `logging_steps` or 500.",
        unit="steps",
        above=0,
        level="basic",
        source="Hugging Face",
    )
    eval_delay: float = option(
        0,
        label="First evaluation after",
        help="Steps or epochs (as in `eval_strategy`) before the first evaluation.",
        minimum=0,
        source="Hugging Face",
    )
    eval_on_start: bool = option(
        False,
        label="Evaluate before training",
        help="Evaluates once before the first step.",
        source="Hugging Face",
    )
    measure_forgetting: bool = option(
        False,
        label="Measure forgetting",
        help=(
            "Measures the loss on general questions at the start and at every evaluation and checkpoint, with an "
            "adapter also the KL divergence from the base. If the loss rises, the model forgets."
        ),
    )
    load_best_model_at_end: bool = option(
        False,
        label="Keep the best checkpoint",
        help="The result is the checkpoint with the best evaluation instead of the last one.",
        source="Hugging Face",
    )
    metric_for_best_model: str | None = option(
        None,
        unset="the evaluation loss",
        label="Best checkpoint by",
        help="Metric that decides which checkpoint is best. Default: the evaluation loss.",
        source="Hugging Face",
    )
    greater_is_better: bool | None = option(
        None,
        unset="by the metric's name",
        label="Greater is better",
        help="Whether a greater metric is better. Default: only if its name does not end in `loss`.",
        source="Hugging Face",
    )
    early_stopping_steps: int | None = option(
        None,
        unset="off",
        label="Early stopping",
        help="Ends the run after this many evaluations without an improvement.",
        unit="evaluations",
        minimum=1,
        source="LLaMA-Factory",
    )
    # -- logging
    logging_strategy: Literal["no", "steps", "epoch"] = option(
        "steps",
        label="Log",
        help="When to log the loss.",
        choices=("no", "steps", "epoch"),
        source="Hugging Face",
    )
    logging_steps: Steps = option(
        1,
        label="Log every",
        help="Steps between logged values. Each is the mean over these steps. Below 1: a share of all steps.",
        unit="steps",
        above=0,
        level="basic",
        source="Hugging Face",
    )
    logging_first_step: bool = option(
        False,
        label="Log the first step",
        help="Logs the first step, whatever the interval.",
        source="Hugging Face",
    )
    log_on_each_node: bool = option(
        True,
        label="Log on each node",
        help="Every machine of a distributed run writes its own log.",
        source="Hugging Face",
    )
    log_level: Literal["detail", "debug", "info", "warning", "error", "critical", "passive"] = option(
        "passive",
        label="Log level",
        help="Log level of transformers. `passive` leaves it as it is.",
        choices=("detail", "debug", "info", "warning", "error", "critical", "passive"),
        source="Hugging Face",
    )
    log_level_replica: Literal["detail", "debug", "info", "warning", "error", "critical", "passive"] = option(
        "warning",
        label="Log level of replicas",
        help="Log level of the other processes of a distributed run.",
        choices=("detail", "debug", "info", "warning", "error", "critical", "passive"),
        source="Hugging Face",
    )
    report_to: Names = option(
        ("none",),
        label="Trackers",
        help="Experiment trackers that also receive the metrics, separated by commas.",
        choices=TRACKERS,
        source="Hugging Face",
    )
    run_name: str | None = option(
        None,
        unset="model, stage and method",
        label="Name",
        help="Name of the run, here and in trackers.",
        source="Hugging Face",
    )
    project: str = option(
        "huggingface",
        label="Trackio project",
        help="Trackio project of the run.",
        source="Hugging Face",
    )
    trackio_space_id: str | None = option(
        None,
        unset="none",
        label="Trackio space",
        help="Hugging Face Space that Trackio sends the metrics to.",
        source="Hugging Face",
    )
    trackio_bucket_id: str | None = option(
        None,
        unset="none",
        label="Trackio bucket",
        help="Hugging Face bucket that Trackio keeps the metrics in.",
        source="Hugging Face",
    )
    trackio_static_space_id: str | Literal[False] | None = option(
        None,
        unset="none",
        label="Trackio static space",
        help="Static Hugging Face Space that shows the finished run.",
        source="Hugging Face",
    )
    push_to_hub: bool = option(
        False,
        label="Push to the hub",
        help="Upload the tuned model to the Hugging Face Hub when the run has finished. Needs HF_TOKEN or a login.",
        source="Hugging Face",
    )
    hub_model_id: str | None = option(
        None,
        unset="the run's name",
        label="Repository",
        help="Hub id to push to: owner/name, or a name of your own.",
        source="Hugging Face",
    )
    hub_private_repo: bool | None = option(
        None,
        unset="the owner's default",
        label="Private repository",
        help="Whether a new repository is private.",
        source="Hugging Face",
    )
    hub_revision: str | None = option(
        None,
        unset="main",
        label="Branch",
        help="Branch of the repository to push to; made if missing.",
        source="Hugging Face",
    )
    # -- checkpoints
    save_strategy: Literal["no", "steps", "epoch", "best"] = option(
        "steps",
        label="Checkpoint",
        help="When to save a checkpoint.",
        choices=("no", "steps", "epoch", "best"),
        source="Hugging Face",
    )
    save_steps: Steps = option(
        500,
        label="Checkpoint every",
        help="Steps between checkpoints. Below 1: a share of all steps.",
        unit="steps",
        above=0,
        level="basic",
        source="Hugging Face",
    )
    save_total_limit: int | None = option(
        None,
        unset="the last two",
        label="Checkpoints kept",
        help="Checkpoints to keep besides the best one. Default: the last two.",
        minimum=1,
        source="Hugging Face",
    )
    ignore_data_skip: bool = option(
        False,
        label="Resume without skipping data",
        help="A resumed run starts at the first example again instead of where it stopped.",
        source="Hugging Face",
    )
    # -- data loading
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = option(
        "random",
        label="Example order",
        help="Order of the examples. Grouping by length wastes less padding and makes the loss curve noisier.",
        choices=("random", "sequential", "group_by_length"),
        source="Hugging Face",
    )
    length_column_name: str = option(
        "length",
        label="Length column",
        help="Column with the lengths for the order by length. Default: they are counted.",
        source="Hugging Face",
    )
    dataloader_drop_last: bool = option(
        False,
        label="Drop the last batch",
        help="Drops the last batch of an epoch if it is not full.",
        source="Hugging Face",
    )
    dataloader_num_workers: int = option(
        0,
        label="Data loader workers",
        help="Number of processes that load batches. 0 loads them in the trainer.",
        minimum=0,
        maximum=MOST_PROCESSES,
        source="Hugging Face",
    )
    dataloader_pin_memory: bool = option(
        True,
        label="Pin memory",
        help="Keeps batches in pinned memory, which a GPU can copy faster.",
        source="Hugging Face",
    )
    dataloader_persistent_workers: bool = option(
        False,
        label="Keep data loader workers",
        help="Keeps the data loader workers alive between epochs.",
        source="Hugging Face",
    )
    dataloader_prefetch_factor: int | None = option(
        None,
        unset="auto: 2",
        label="Prefetch",
        help="Batches that each data loader worker prepares ahead.",
        unit="batches",
        minimum=1,
        source="Hugging Face",
    )
    dataloader_multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = option(
        None,
        unset="the system's own",
        label="Worker start method",
        help="How data loader workers are started.",
        choices=("fork", "spawn", "forkserver"),
        source="Hugging Face",
    )
    dataloader_in_order: bool = option(
        True,
        label="Batches in order",
        help="Uses batches in order even if a later one is ready first.",
        source="Hugging Face",
    )
    accelerator_config: Object | None = option(
        None,
        unset="none",
        label="Accelerate options",
        help="Further arguments of accelerate, such as `{even_batches: false}`.",
        source="Hugging Face",
    )

    @field_validator("max_steps")
    @classmethod
    def _steps_or_none(cls, value: int) -> int:
        if value == 0:
            raise ValueError("Expected a number of steps, or -1 to leave it to the epochs.")
        return value
