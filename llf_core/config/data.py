"""What is learned from, and how it is rendered."""

from __future__ import annotations

from typing import Literal

from llf_core.config.option import Names, Section, Steps, option

TEMPLATES = ("alpaca", "chatml", "default", "gemma", "llama3", "mistral", "phi", "qwen", "smollm2", "vicuna")


class Data(Section):
    """What is learned from, and how it is rendered."""

    dataset: Names | None = option(
        None,
        label="Data set",
        help="Names of `dataset_info.json`, files, folders or hub ids, with commas between several; "
        "`llf_demo` ships with LLF.",
        level="basic",
        source="LLaMA-Factory",
        path="data",
    )
    eval_dataset: Names | None = option(
        None,
        label="Evaluation data set",
        help="What the model is evaluated on, named as the data set is.",
        source="LLaMA-Factory",
        path="data",
    )
    dataset_dir: str = option(
        "data",
        label="Data folder",
        help="The folder that holds `dataset_info.json` and the files it names.",
        source="LLaMA-Factory",
        path="folder",
    )
    template: str | None = option(
        None,
        label="Template",
        help="How a conversation is rendered; unset, by the tokenizer's own chat template.",
        choices=TEMPLATES,
        source="LLaMA-Factory",
    )
    enable_thinking: bool | None = option(
        True,
        label="Thinking",
        help="Passed to chat templates that ask for it; unset, the template decides.",
        source="LLaMA-Factory",
    )
    cutoff_len: int = option(
        2048,
        label="Cutoff length",
        help="Longer examples are cut to this many tokens; every cut is counted.",
        unit="tokens",
        minimum=2,
        level="basic",
        source="LLaMA-Factory",
    )
    packing: bool | None = option(
        None,
        label="Packing",
        help="Fills each row, up to the cutoff length, with several examples that never see each other; an epoch "
        "then has fewer steps.",
        source="LLaMA-Factory",
    )
    max_samples: int | None = option(
        None,
        label="At most",
        help="Takes only the first examples of each data set.",
        unit="examples",
        minimum=1,
        level="basic",
        source="LLaMA-Factory",
    )
    val_size: Steps = option(
        0.0,
        label="Hold out",
        help="Share of the examples (below 1), or their number, that is kept for evaluation.",
        minimum=0,
        level="basic",
        source="LLaMA-Factory",
    )
    train_on_prompt: bool = option(
        False,
        label="Learn the prompts too",
        help="Trains on every token of a conversation, not on the answers alone.",
        source="LLaMA-Factory",
    )
    mask_history: bool = option(
        False,
        label="Last answer only",
        help="Trains on the last answer of a conversation, not on every answer.",
        source="LLaMA-Factory",
    )
    default_system: str | None = option(
        None,
        label="System prompt",
        help="The system prompt of conversations that bring none.",
        source="LLaMA-Factory",
    )
    mix_strategy: Literal["concat"] = option(
        "concat",
        label="Mixing",
        help="How several data sets become one.",
        choices=("concat",),
        source="LLaMA-Factory",
    )
    preprocessing_num_workers: int | None = option(
        None,
        label="Preparing processes",
        help="How many processes render and tokenize the examples.",
        minimum=1,
        source="LLaMA-Factory",
    )
    overwrite_cache: bool = option(
        False,
        label="Prepare again",
        help="Prepares the data set anew even where a prepared one is kept.",
        source="LLaMA-Factory",
    )
