"""How long, how large, how precise, and what is kept: our own table of the Trainer's keys."""

from __future__ import annotations

from typing import Any, Literal

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
"""Loading processes; each has the memory of a Python with torch."""
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
    """How long, how large, how precise, and what is kept."""

    output_dir: str | None = option(
        None,
        unset="nowhere",
        label="Copy the result to",
        help="Receives a copy of the tuned model at the end, in place of an earlier one; a folder that holds anything "
        "else is refused.",
        level="basic",
        source="Hugging Face",
        path="folder",
    )
    num_train_epochs: float = option(
        3.0,
        label="Epochs",
        help="How often every example is seen; overridden by Steps.",
        above=0,
        level="basic",
        source="Hugging Face",
    )
    max_steps: int = option(
        -1,
        unset="all epochs",
        label="Steps",
        help="Ends the run after this many steps and overrides Epochs; -1 trains all epochs.",
        minimum=-1,
        level="basic",
        source="Hugging Face",
    )
    per_device_train_batch_size: int = option(
        8,
        label="Batch size",
        help="How many examples a device computes at once.",
        unit="examples",
        minimum=1,
        level="basic",
        source="Hugging Face",
    )
    gradient_accumulation_steps: int = option(
        1,
        label="Accumulate",
        help="How many batches make one step; the result is that of one large batch.",
        unit="batches",
        minimum=1,
        level="basic",
        source="Hugging Face",
    )
    per_device_eval_batch_size: int = option(
        8,
        label="Evaluation batch size",
        help="How many examples a device evaluates at once.",
        unit="examples",
        minimum=1,
        source="Hugging Face",
    )
    label_smoothing_factor: float = option(
        0.0,
        label="Label smoothing",
        help="Share of the probability that is spread over the whole vocabulary.",
        minimum=0,
        below=1,
        source="Hugging Face",
    )
    neftune_noise_alpha: float | None = option(
        None,
        unset="none",
        label="NEFTune noise",
        help="Adds noise to the embeddings while training (arXiv 2310.05914); 5 is usual.",
        above=0,
        source="Hugging Face",
    )
    seed: int = option(
        42,
        label="Seed",
        help="Makes a run repeatable.",
        minimum=0,
        maximum=2**32 - 1,
        level="basic",
        source="Hugging Face",
    )
    data_seed: int | None = option(
        None,
        unset="auto: {seed}",
        label="Data seed",
        help="Seed of the examples' order; unset, the seed.",
        minimum=0,
        maximum=2**32 - 1,
        source="Hugging Face",
    )
    full_determinism: bool = option(
        False,
        label="Fully deterministic",
        help="Takes only operations that give the same bits every time, which is slower on a GPU.",
        source="Hugging Face",
    )
    # -- precision and speed
    bf16: bool = option(
        False,
        label="bf16",
        help="Computes in bfloat16; off, the device decides by what is faster.",
        source="Hugging Face",
    )
    fp16: bool = option(
        False,
        label="fp16",
        help="Computes in float16, for GPUs that know no bfloat16.",
        source="Hugging Face",
    )
    pure_bf16: bool = option(
        False,
        label="Pure bf16",
        help="Keeps weights and optimizer in bfloat16 too: half the memory, and small steps may be lost.",
        source="LLaMA-Factory",
    )
    tf32: bool | None = option(
        None,
        unset="PyTorch's default",
        label="tf32",
        help="Lets NVIDIA GPUs multiply float32 matrices in TF32.",
        source="Hugging Face",
    )
    use_cpu: bool = option(
        False,
        label="On the CPU",
        help="Trains on the CPU even where there is a GPU.",
        source="Hugging Face",
    )
    gradient_checkpointing: bool | None = option(
        None,
        unset="where memory is short",
        label="Gradient checkpointing",
        help="Computes activations again instead of keeping them, a third slower; unset, only where memory is short.",
        source="Hugging Face",
    )
    gradient_checkpointing_kwargs: Object | None = option(
        None,
        unset="none",
        label="Checkpointing options",
        help="More arguments of gradient checkpointing.",
        source="Hugging Face",
    )
    fast_path: bool = option(
        True,
        label="Fast path",
        help="Takes faster forms of the model's parts, and batches without padding; off, all is plain, for comparison.",
    )
    trunk_cache_gb: float = option(
        10.0,
        label="Cache of frozen layers",
        help="Disk that may keep what frozen lower layers compute, so that later epochs skip them; 0 keeps nothing.",
        unit="GB",
        minimum=0,
    )
    torch_compile: bool = option(
        False,
        label="Compile",
        help="Compiles the model with torch.compile; the first step takes minutes, later ones are faster.",
        source="Hugging Face",
    )
    torch_compile_backend: str | None = option(
        None,
        unset="PyTorch's default",
        label="Compiler",
        help="Back end of torch.compile, e.g. `inductor`.",
        choices=COMPILERS,
        source="Hugging Face",
    )
    torch_compile_mode: str | None = option(
        None,
        unset="PyTorch's default",
        label="Compiler mode",
        help="Mode of torch.compile, e.g. `reduce-overhead`.",
        choices=COMPILER_MODES,
        source="Hugging Face",
    )
    torch_empty_cache_steps: int | None = option(
        None,
        unset="never",
        label="Empty the cache every",
        help="Gives unused GPU memory back every so many steps, which is slower.",
        unit="steps",
        minimum=1,
        source="Hugging Face",
    )
    # -- evaluation
    eval_strategy: Literal["no", "steps", "epoch"] = option(
        "no",
        label="Evaluate",
        help="When the held-out examples are evaluated.",
        choices=("no", "steps", "epoch"),
        level="basic",
        source="Hugging Face",
    )
    eval_steps: Steps | None = option(
        None,
        unset="never",
        label="Evaluate every",
        help="Steps between evaluations; below 1, a share of all steps; unset, `logging_steps` or 500.",
        unit="steps",
        above=0,
        level="basic",
        source="Hugging Face",
    )
    eval_delay: float = option(
        0,
        label="First evaluation after",
        help="Steps or epochs, as `eval_strategy` counts, before the first evaluation.",
        minimum=0,
        source="Hugging Face",
    )
    eval_on_start: bool = option(
        False,
        label="Evaluate first",
        help="Evaluates once before the first step, which is what the untuned model scores.",
        source="Hugging Face",
    )
    load_best_model_at_end: bool = option(
        False,
        label="Keep the best",
        help="The result is the checkpoint with the best evaluation, not the last.",
        source="Hugging Face",
    )
    metric_for_best_model: str | None = option(
        None,
        unset="the evaluation loss",
        label="Best by",
        help="What makes a checkpoint the best; unset, the evaluation loss.",
        source="Hugging Face",
    )
    greater_is_better: bool | None = option(
        None,
        unset="by the metric's name",
        label="Greater is better",
        help="Whether a greater metric is better; unset, only where its name does not end in `loss`.",
        source="Hugging Face",
    )
    early_stopping_steps: int | None = option(
        None,
        unset="off",
        label="Early stopping",
        help="Ends the run after so many evaluations without a better one.",
        unit="evaluations",
        minimum=1,
        source="LLaMA-Factory",
    )
    # -- logging
    logging_strategy: Literal["no", "steps", "epoch"] = option(
        "steps",
        label="Log",
        help="When the loss is logged.",
        choices=("no", "steps", "epoch"),
        source="Hugging Face",
    )
    logging_steps: Steps = option(
        1,
        label="Log every",
        help="Steps between points of the loss curve, each their mean; below 1, a share of all steps.",
        unit="steps",
        above=0,
        level="basic",
        source="Hugging Face",
    )
    logging_first_step: bool = option(
        False,
        label="Log the first step",
        help="Logs the first step too, whatever the interval.",
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
        help="How much transformers writes to the log; `passive` leaves it as it is.",
        choices=("detail", "debug", "info", "warning", "error", "critical", "passive"),
        source="Hugging Face",
    )
    log_level_replica: Literal["detail", "debug", "info", "warning", "error", "critical", "passive"] = option(
        "warning",
        label="Log level of replicas",
        help="How much the other processes of a distributed run write.",
        choices=("detail", "debug", "info", "warning", "error", "critical", "passive"),
        source="Hugging Face",
    )
    report_to: Names = option(
        ("none",),
        label="Trackers",
        help="Experiment trackers that receive the metrics too, with commas between several.",
        choices=TRACKERS,
        source="Hugging Face",
    )
    run_name: str | None = option(
        None,
        unset="model, stage and method",
        label="Name",
        help="The run's name, here and in trackers.",
        source="Hugging Face",
    )
    project: str = option(
        "huggingface",
        label="Trackio project",
        help="The project that Trackio files the run under.",
        source="Hugging Face",
    )
    trackio_space_id: str | None = option(
        None,
        unset="none",
        label="Trackio space",
        help="The Hugging Face Space that Trackio sends the metrics to.",
        source="Hugging Face",
    )
    trackio_bucket_id: str | None = option(
        None,
        unset="none",
        label="Trackio bucket",
        help="The Hugging Face bucket that Trackio keeps the metrics in.",
        source="Hugging Face",
    )
    trackio_static_space_id: str | Literal[False] | None = option(
        None,
        unset="none",
        label="Trackio static space",
        help="The static Hugging Face Space that Trackio shows the finished run in.",
        source="Hugging Face",
    )
    # -- checkpoints
    save_strategy: Literal["no", "steps", "epoch", "best"] = option(
        "steps",
        label="Checkpoint",
        help="When a checkpoint is saved.",
        choices=("no", "steps", "epoch", "best"),
        source="Hugging Face",
    )
    save_steps: Steps = option(
        500,
        label="Checkpoint every",
        help="Steps between checkpoints; below 1, a share of all steps.",
        unit="steps",
        above=0,
        level="basic",
        source="Hugging Face",
    )
    save_total_limit: int | None = option(
        None,
        unset="the last two",
        label="Checkpoints kept",
        help="How many are kept beside the best one; unset, the last two.",
        minimum=1,
        source="Hugging Face",
    )
    ignore_data_skip: bool = option(
        False,
        label="Resume without skipping",
        help="A resumed run starts the data anew instead of going on where it was.",
        source="Hugging Face",
    )
    # -- data loading
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = option(
        "random",
        label="Order",
        help="The order of the examples; by length wastes less on padding and makes the curve rougher.",
        choices=("random", "sequential", "group_by_length"),
        source="Hugging Face",
    )
    length_column_name: str = option(
        "length",
        label="Length column",
        help="Column that holds the lengths for the order by length; without it they are counted.",
        source="Hugging Face",
    )
    dataloader_drop_last: bool = option(
        False,
        label="Drop the last batch",
        help="Leaves out the last batch of an epoch where it is not full.",
        source="Hugging Face",
    )
    dataloader_num_workers: int = option(
        0,
        label="Loading processes",
        help="How many processes load batches; 0 loads in the trainer itself.",
        minimum=0,
        maximum=MOST_PROCESSES,
        source="Hugging Face",
    )
    dataloader_pin_memory: bool = option(
        True,
        label="Pin memory",
        help="Keeps batches where a GPU can fetch them faster.",
        source="Hugging Face",
    )
    dataloader_persistent_workers: bool = option(
        False,
        label="Keep loading processes",
        help="Keeps the loading processes alive between epochs.",
        source="Hugging Face",
    )
    dataloader_prefetch_factor: int | None = option(
        None,
        unset="auto: 2",
        label="Prefetch",
        help="How many batches each loading process prepares ahead.",
        unit="batches",
        minimum=1,
        source="Hugging Face",
    )
    dataloader_multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = option(
        None,
        unset="the system's own",
        label="Start of loading processes",
        help="How the loading processes are started.",
        choices=("fork", "spawn", "forkserver"),
        source="Hugging Face",
    )
    dataloader_in_order: bool = option(
        True,
        label="Batches in order",
        help="Takes the batches in order, even if a later one is ready first.",
        source="Hugging Face",
    )
    accelerator_config: Object | None = option(
        None,
        unset="none",
        label="Accelerate options",
        help="More arguments of accelerate, e.g. `{even_batches: false}`.",
        source="Hugging Face",
    )

    @field_validator("max_steps")
    @classmethod
    def _steps_or_none(cls, value: Any) -> Any:
        if value == 0:
            raise ValueError("Expected a number of steps, or -1 to leave it to the epochs.")
        return value
