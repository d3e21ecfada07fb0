"""What is learned from, and how it is rendered."""

from __future__ import annotations

from typing import Literal

from llf_core.config.chat_templates import TOOL_FORMATS, template_names
from llf_core.config.option import Names, Object, Section, Steps, option


class Data(Section):
    """What is learned from, and how it is rendered."""

    dataset: Names | None = option(
        None,
        unset="a name, a file or a folder",
        label="Data set",
        help="Names of `dataset_info.json`, files, folders or hub ids, with commas between several; "
        "`llf_demo` and `llf_demo_pairs` ship with LLF.",
        level="basic",
        source="LLaMA-Factory",
        path="data",
    )
    eval_dataset: Names | None = option(
        None,
        unset="none",
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
    media_dir: str | None = option(
        None,
        unset="the data folder",
        label="Media folder",
        help="Where the paths of pictures, videos and sounds begin; unset, in the data folder.",
        source="LLaMA-Factory",
        path="folder",
    )
    dataset_format: Literal["alpaca", "sharegpt", "openai", "text"] | None = option(
        None,
        unset="by the columns",
        label="Format",
        help="How the rows of sets without an entry in `dataset_info.json` are read; unset, by their columns.",
        choices=("alpaca", "sharegpt", "openai", "text"),
        source="LLF",
    )
    dataset_columns: Object | None = option(
        None,
        unset="by their names",
        label="Columns",
        help="Which column holds what, in the words of `dataset_info.json`: "
        '`{"prompt": "question", "response": "reply"}`.',
        source="LLF",
    )
    template: str | None = option(
        None,
        unset="the model's own",
        label="Template",
        help="How a conversation is rendered; unset, by the tokenizer's own chat template.",
        choices=template_names(),
        source="LLaMA-Factory",
    )
    tool_format: str | None = option(
        None,
        unset="as the template's models do",
        label="Tool format",
        help="How a named template offers and calls functions; unset, as its models do.",
        choices=TOOL_FORMATS,
        source="LLaMA-Factory",
    )
    enable_thinking: bool | None = option(
        True,
        unset="the template decides",
        label="Thinking",
        help="Passed to chat templates that ask for it; unset, the template decides.",
        source="LLaMA-Factory",
    )
    preserve_thinking: bool = option(
        False,
        label="Keep earlier thoughts",
        help="Keeps the thoughts of earlier answers; else each answer of a thinking model is an example of its own, "
        "after the context that the model meets when it gives it.",
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
    cutoff_strategy: Literal["cut", "drop", "split"] = option(
        "cut",
        label="Longer examples",
        help="Cuts the ends of the question and of the answer and keeps the end of the turn; or leaves the example "
        "out; or splits it into several, in which every answer token is learned once.",
        choices=("cut", "drop", "split"),
        source="LLF",
    )
    packing: bool | None = option(
        None,
        unset="no",
        label="Packing",
        help="Fills each row, up to the cutoff length, with several examples that never see each other; an epoch "
        "then has fewer steps.",
        source="LLaMA-Factory",
    )
    drop_duplicates: bool = option(
        False,
        label="Leave out copies",
        help="Trains once on examples of the same tokens; they are counted.",
        source="LLF",
    )
    stop_on_dropped: bool = option(
        False,
        label="Stop on dropped records",
        help="Ends with an error, and their numbers, where records cannot be read or give no example; else they are "
        "left out, counted and named.",
        source="LLF",
    )
    max_samples: int | None = option(
        None,
        unset="all",
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
        unset="none",
        label="System prompt",
        help="The system prompt of conversations that bring none.",
        source="LLaMA-Factory",
    )
    mix_strategy: Literal["concat", "interleave_under", "interleave_over", "interleave_once"] = option(
        "concat",
        label="Mixing",
        help="How several data sets become one: one after the other; or in turns until the first is used up, until "
        "all are (shorter ones repeat), or until all are without repeating any.",
        choices=("concat", "interleave_under", "interleave_over", "interleave_once"),
        source="LLaMA-Factory",
    )
    interleave_probs: Names | None = option(
        None,
        unset="all equally",
        label="Shares",
        help="How often each data set takes its turn, as shares of 1 with commas between; unset, all equally.",
        source="LLaMA-Factory",
    )
    preprocessing_num_workers: int | None = option(
        None,
        unset="auto",
        label="Preparing processes",
        help="How many processes render and tokenize the examples.",
        minimum=1,
        source="LLaMA-Factory",
    )
    streaming: bool = option(
        False,
        label="Streaming",
        help="Prepares the examples while the training goes on, of data that is too large to prepare beforehand; "
        "the run then ends after `max_steps`.",
        source="LLaMA-Factory",
    )
    buffer_size: int = option(
        16384,
        label="Buffer",
        help="Among how many streamed examples each next one is drawn; packing fills its rows with as many.",
        unit="examples",
        minimum=1,
        source="LLaMA-Factory",
    )
    overwrite_cache: bool = option(
        False,
        label="Prepare again",
        help="Prepares the data set anew even where a prepared one is kept.",
        source="LLaMA-Factory",
    )
