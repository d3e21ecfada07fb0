"""Small sections of a config: chat, evaluation, generation, method, optimizer, and where a run runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import AfterValidator

from llf_core.config.option import Lines, Names, Object, Section, Steps, option
from llf_core.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping


class Chat(Section):
    """Chat, server and prediction."""

    infer_backend: str = option(
        "huggingface",
        label="Chat engine",
        help="What holds the model in `llf chat`, `llf serve`, `llf predict` and `llf.Chat`.",
        choices_from="chat_engine",
        source="LLaMA-Factory",
    )
    infer_dtype: Literal["auto", "float16", "bfloat16", "float32"] = option(
        "auto",
        choices=("auto", "float16", "bfloat16", "float32"),
        label="Chat precision",
        help="Data type of the weights while chatting. `auto` chooses the fastest one that is safe on the device.",
        source="LLaMA-Factory",
    )


class Evaluation(Section):
    """Metrics beside the loss at each evaluation of a run."""

    metrics: Names | None = option(
        None,
        unset="the loss alone",
        label="Metrics",
        help=(
            "Metrics of generated answers at each evaluation: built-in ones (`rouge`, `bleu`, `chrf`, `exact_match`, "
            "`f1`), those of plug-ins, functions under `@llf.metric`, or `FILE.py:FUNCTION`."
        ),
        path="metrics",
    )
    metrics_examples: int = option(
        64,
        label="Answered examples",
        help="At each evaluation, `metrics` score the answers to this many validation examples, equally many of each "
        "data set.",
        unit="examples",
        minimum=1,
    )
    metrics_tokens: int = option(
        256,
        label="Answer length",
        help="Answers that `metrics` score are truncated after this many tokens.",
        unit="tokens",
        minimum=1,
    )
    compute_accuracy: bool = option(
        False,
        label="Token accuracy",
        help="Each evaluation also measures the share of tokens in the loss that are the most likely ones.",
        source="LLaMA-Factory",
        trait="token_accuracy",
    )
    eval_on_each_dataset: bool = option(
        False,
        label="Evaluate each data set",
        help="Each evaluation also has the loss and the metrics of each data set, as `NAME_loss`.",
        source="LLaMA-Factory",
    )
    do_predict: bool = option(
        False,
        label="Predict after training",
        help="After training, the result answers the evaluation data: `generated_predictions.jsonl`, and their "
        "`metrics` in `predict_results.json`.",
        source="LLaMA-Factory",
    )


LONGEST_PROMPT = 4000
"""Maximum characters of a watched prompt."""

LEAST_DIVISOR = 0.001
"""Minimum divisor of logits: the quotient stays finite in 16 bits."""


class Generation(Section):
    """Sampling of completions."""

    do_sample: bool = option(
        True,
        label="Sample",
        help="Samples tokens by their probability. Off: greedy decoding.",
        source="Hugging Face",
    )
    temperature: float = option(
        0.95,
        label="Temperature",
        help="Softmax temperature of sampling. Below 1, likely tokens are sampled more often; above 1, less often.",
        minimum=LEAST_DIVISOR,
        source="Hugging Face",
    )
    top_p: float = option(
        0.7,
        label="Top p",
        help="Nucleus sampling: samples from the most likely tokens whose probabilities sum to this.",
        above=0,
        maximum=1,
        source="Hugging Face",
    )
    top_k: int = option(
        50,
        label="Top k",
        help="Samples from this many of the most likely tokens. 0 samples from all.",
        minimum=0,
        source="Hugging Face",
    )
    num_beams: int = option(
        1,
        label="Beams",
        help="Number of beams of beam search. 1 switches it off.",
        minimum=1,
        source="Hugging Face",
    )
    max_length: int = option(
        1024,
        label="Maximum length",
        help="Maximum tokens of prompt and answer together. `max_new_tokens` overrides it.",
        unit="tokens",
        minimum=1,
        source="Hugging Face",
    )
    max_new_tokens: int = option(
        1024,
        label="Maximum new tokens",
        help="Answers are truncated after this many tokens.",
        unit="tokens",
        minimum=0,
        source="Hugging Face",
    )
    repetition_penalty: float = option(
        1.0,
        label="Repetition penalty",
        help="Above 1, tokens that already occurred become less likely.",
        minimum=LEAST_DIVISOR,
        source="Hugging Face",
    )
    length_penalty: float = option(
        1.0,
        label="Length penalty",
        help="With beam search, values above 0 favour longer answers, below 0 shorter ones.",
        source="Hugging Face",
    )
    skip_special_tokens: bool = option(
        True,
        label="Hide special tokens",
        help="Leaves special tokens out of the text.",
        source="Hugging Face",
    )
    watched_prompts: Lines | None = option(
        None,
        unset="none: write one prompt per line",
        label="Watched prompts",
        help=(
            "Prompts, one per line, that the base model answers at the start and the tuned model at every checkpoint "
            "and evaluation."
        ),
        lines=True,
        level="basic",
    )
    watched_tokens: int = option(
        64,
        label="Watched answer length",
        help="Answers to watched prompts are truncated after this many tokens.",
        unit="tokens",
        minimum=1,
    )


class MethodSection(Section):
    """Fine-tuning method."""

    finetuning_type: str = option(
        "lora",
        label="Method",
        help="Which parameters are trained: an adapter (`lora`), some layers (`freeze`) or all (`full`).",
        choices_from="method",
        level="basic",
        source="LLaMA-Factory",
    )
    additional_target: Names | None = option(
        None,
        unset="none",
        label="Modules trained in full",
        help="Names of further modules to train in full and save with the adapter, such as `embed_tokens`.",
        source="LLaMA-Factory",
        method_trait="adapter",
    )
    create_new_adapter: bool = option(
        False,
        label="Start a new adapter",
        help="Merges every adapter of `adapter_name_or_path` into the model and trains a new one.",
        source="LLaMA-Factory",
        method_trait="adapter",
    )
    freeze_vision_tower: bool = option(
        True,
        label="Freeze vision tower",
        help="Leaves the encoders of images, videos and audio of a multimodal model unchanged.",
        source="LLaMA-Factory",
    )
    freeze_multi_modal_projector: bool = option(
        True,
        label="Freeze projector",
        help="Leaves the layers between the encoders and the language model of a multimodal model unchanged.",
        source="LLaMA-Factory",
    )
    freeze_language_model: bool = option(
        False,
        label="Freeze language model",
        help="Leaves the language model of a multimodal model unchanged, to train its encoders or projector alone.",
        source="LLaMA-Factory",
    )


Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
]


def assignments(value: str) -> str:
    """Check the text of `optim_args`: `name=value`, separated by commas."""
    for part in value.replace(" ", "").split(",") if value else ():
        name, sign, given = part.partition("=")
        if not name.isidentifier() or not sign or not given or "=" in given:
            raise ValueError("Expected `name=value`, separated by commas, for example `momentum=0.9`.")
    return value


Assignments = Annotated[str, AfterValidator(assignments)]
SCHEDULERS: tuple[str, ...] = get_args(Scheduler)


class OptimizerSection(Section):
    """Optimizer, learning rate and schedule."""

    learning_rate: float = option(
        5e-5,
        label="Learning rate",
        help="Step size of the optimizer. Typical: 1e-4 for LoRA, 1e-5 for full fine-tuning.",
        minimum=0,
        level="basic",
        source="Hugging Face",
    )
    lr_scheduler_type: Scheduler = option(
        "linear",
        label="Learning rate schedule",
        help="How the learning rate changes over the run.",
        choices=SCHEDULERS,
        level="basic",
        source="Hugging Face",
    )
    lr_scheduler_kwargs: Object | None = option(
        None,
        unset="none",
        label="Schedule options",
        help="Further arguments of the schedule, such as `{min_lr: 1e-6}`.",
        source="Hugging Face",
    )
    warmup_steps: Steps = option(
        0,
        label="Warmup steps",
        help="Steps over which the learning rate rises from 0. Below 1: a share of all steps.",
        minimum=0,
        level="basic",
        source="Hugging Face",
    )
    optim: str = option(
        "adamw_torch_fused",
        label="Optimizer",
        help="Optimizer. The 8-bit ones keep their state in a quarter of the memory.",
        choices_from="optimizer",
        source="Hugging Face",
    )
    optim_args: Assignments | None = option(
        None,
        unset="none",
        label="Optimizer options",
        help="Further arguments of the optimizer, as `name=value,name=value`.",
        source="Hugging Face",
    )
    weight_decay: float = option(
        0.0,
        label="Weight decay",
        help="Decoupled weight decay (AdamW). Typical: 0 to 0.1.",
        minimum=0,
        source="Hugging Face",
    )
    adam_beta1: float = option(
        0.9,
        label="Adam beta 1",
        help="Decay rate of Adam's running mean of gradients.",
        minimum=0,
        below=1,
        source="Hugging Face",
    )
    adam_beta2: float = option(
        0.999,
        label="Adam beta 2",
        help="Decay rate of Adam's running mean of squared gradients.",
        minimum=0,
        below=1,
        source="Hugging Face",
    )
    adam_epsilon: float = option(
        1e-8,
        label="Adam epsilon",
        help="Added to Adam's denominator for numerical stability.",
        minimum=0,
        source="Hugging Face",
    )
    max_grad_norm: float = option(
        1.0,
        label="Gradient clipping",
        help="Maximum norm of the gradient. Larger gradients are scaled down to it; 0 switches clipping off.",
        minimum=0,
        source="Hugging Face",
    )


_TARGET = re.compile(r"[\w\[/][\w.@:,\[\]/~+=%-]*", re.ASCII)


def _target(value: str) -> str:
    if not _TARGET.fullmatch(value) or len(value) > 255:  # noqa: PLR2004 - the longest name of a host
        raise ValueError("Expected one word of letters, digits and . @ : , [ ] / ~ + = % _ -, not starting with -.")
    return value


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A way in which several processes share a run.

    Attributes:
        name: value of `strategy`.
        summary: one sentence: what it saves and what it costs.
        on_cpu: one more sentence for processes without a GPU; may be empty.
        shards: whether each process keeps only its share of weights, gradients and optimizer state.
        keeps_gathered: whether a layer that was gathered stays whole until its backward pass.
        copies_machines: whether the processes of each machine keep all shares among them, as those of every other do.
    """

    name: str
    label: str
    summary: str
    on_cpu: str = ""
    shards: bool = False
    keeps_gathered: bool = False
    copies_machines: bool = False

    @property
    def line(self) -> str:
        """Label and summary."""
        return f"{self.label}: {self.summary}"


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        one.name: one
        for one in (
            Strategy(
                name="ddp",
                label="DDP",
                summary="Saves time: each process computes its share of a batch. Costs the memory of a whole run for "
                "each process, and a sum of the trained gradients in each step.",
                on_cpu="Processes on one CPU share its cores, so a step takes about as long as in one process.",
            ),
            Strategy(
                name="fsdp2",
                label="FSDP2",
                summary="Saves memory: each process keeps its share of weights, gradients and optimizer state. Costs "
                "communication: each layer is gathered whenever it computes.",
                on_cpu="Processes on one CPU share its memory, so together they need at least the memory of one.",
                shards=True,
            ),
            Strategy(
                name="zero2",
                label="ZeRO-2",
                summary="Saves memory between two steps, as FSDP2 does. Costs the memory of all weights in a step, and "
                "less communication than FSDP2: a gathered layer stays whole until its backward pass.",
                on_cpu="Processes on one CPU share its memory, so together they need at least the memory of one.",
                shards=True,
                keeps_gathered=True,
            ),
            Strategy(
                name="hsdp",
                label="HSDP",
                summary="Saves time between machines: FSDP2 within each machine, so that only gradients leave it. "
                "Costs memory: each machine keeps all weights, gradients and optimizer state.",
                on_cpu="Processes on one CPU share its memory, so together they need at least the memory of one.",
                shards=True,
                copies_machines=True,
            ),
        )
    }
)
"""Strategies by name, in the order of a form."""


class Launch(Section):
    """Launch of the training process."""

    threads: int | None = option(
        None,
        unset="one per core",
        label="CPU threads",
        help="Number of CPU threads of each process. Default: one per core, shared by the processes.",
        minimum=1,
        maximum=1024,
    )
    launch: Literal["local", "torchrun", "slurm", "ray", "ssh"] = option(
        "local",
        level="basic",
        choices=("local", "torchrun", "slurm", "ray", "ssh"),
        label="Run on",
        help="Where the run runs: `local` is this machine, `torchrun` several machines, `slurm` and `ray` a "
        "cluster, which share the folder of runs, and `ssh` another host.",
    )
    launch_target: Annotated[str, AfterValidator(_target)] | None = option(
        None,
        level="basic",
        unset="none",
        label="Target",
        help="What `launch` starts the run on: HOST:PORT of the first machine for torchrun, a partition for slurm, "
        "HOST:PORT of the head for ray, [USER@]HOST[:PORT] for ssh.",
    )
    num_processes: int = option(
        1,
        level="basic",
        label="Processes",
        help="Number of processes that train together on each machine, each with a share of every batch (torchrun). "
        "Usual: one per GPU.",
        minimum=1,
        maximum=1024,
    )
    num_nodes: int = option(
        1,
        level="basic",
        label="Machines",
        help="Number of machines that train together, with as many processes each (`launch: torchrun`).",
        minimum=1,
        maximum=1024,
    )
    strategy: Literal["ddp", "fsdp2", "zero2", "hsdp"] = option(
        "ddp",
        level="basic",
        label="Strategy",
        help="What each process has: `ddp` the whole model, `fsdp2` its part (ZeRO-3), `zero2` its part and the layers "
        "gathered before the backward pass, `hsdp` its part within a machine.",
        choices=tuple(STRATEGIES),
    )
    sync_to: str | None = option(
        None,
        unset="not copied",
        label="Copy to",
        help="Folder, or address at s3://, gs://, hf://buckets/ or ssh://, that receives after each checkpoint what a "
        "resume on another machine needs.",
        path="folder",
    )

    @property
    def ranks(self) -> int:
        """Number of processes that train together, on all machines."""
        return self.num_processes * self.num_nodes


SHARDED_QUANTIZER = ("bnb", 4)
"""Quantizer and bits of the packed weights that FSDP2 shards."""

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "ssh": "sshfs"}
"""Package of each scheme; fsspec's own `ssh` accepts any host key, so that of sshfs is needed."""
_ADDRESS = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)

EXPECTED = (
    "Expected a folder, file:///folder, s3://bucket/folder, gs://bucket/folder, hf://buckets/owner/name/folder or "
)
EXPECTED += "ssh://host/folder."


def scheme_of(place: str) -> str:
    """The scheme of an address; empty for a folder, also one as `file://`."""
    found = _ADDRESS.fullmatch(place)
    scheme = found["scheme"].lower() if found else ""
    return "" if scheme == "file" else scheme


def holds_credentials(place: str) -> bool:
    """Whether an address has a password, a key or options in it, which would be stored with the run."""
    found = _ADDRESS.fullmatch(place)
    if found is None or not scheme_of(place):
        return False
    before, at, _ = found["rest"].rpartition("@")
    return (bool(at) and ":" in before) or "?" in found["rest"] or redact(place, named=False) != place


def place_problem(place: str) -> str:
    """Why a run cannot be copied to a place, by its form alone, in sentences; empty if it can."""
    if holds_credentials(place):
        return (
            "`sync_to` has credentials or options in its address, which would be stored with the run. Expected an "
            "address without them: set the service's environment variables (AWS_ACCESS_KEY_ID, HF_TOKEN, …) or its "
            "configuration of this user."
        )
    scheme = scheme_of(place)
    if scheme and scheme not in PACKAGES:
        return f"`sync_to` is {place}, and nothing copies to {scheme}://. {EXPECTED}"
    if scheme == "hf" and not re.match(r"hf://buckets/[^/]+/[^/]+", place):
        return (
            f"`sync_to` is {place}: a repository keeps every checkpoint in its history, a bucket does not. Expected "
            "hf://buckets/owner/name/folder."
        )
    if scheme and not re.match(r"ssh://[^/]+/[^/]+|(?!ssh)[a-z0-9]+://[^/]+", place, re.IGNORECASE):
        return f"`sync_to` is {place}, which names no bucket, or no folder of a host. {EXPECTED}"
    return ""


def is_place(text: str) -> bool:
    """Whether a text names the copy of a run: an address or a path; `ssh://host/run` is a run on another host."""
    return "/" in text and not re.fullmatch(r"ssh://[^/]+(/[^/]*)?", text, re.IGNORECASE)
