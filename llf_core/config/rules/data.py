"""Rules about what is learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import exact
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.rules.conditions import HOLD_OUT

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig

TOLERANCE = 1e-6
COLUMNS = (
    "prompt", "query", "response", "history", "messages", "system", "tools",
    "images", "videos", "audios", "chosen", "rejected", "kto_tag",
)  # fmt: skip
"""What a column of a data set can hold, in LLaMA-Factory's words."""


def unknown_columns(given: dict[str, Any] | None) -> list[str]:
    """Names that are none of `COLUMNS`, or that name no column."""
    return [key for key, column in (given or {}).items() if key not in COLUMNS or not isinstance(column, str)]


LEAST_SHARE = 0.001
"""Of a data set that is to be used up: it takes a thousand turns an example."""


def shares(given: tuple[str, ...] | None) -> tuple[float, ...] | None:
    """The shares as numbers, none where none are given; None where they are no shares of 1."""
    try:
        numbers = tuple(float(one) for one in given or ())
    except ValueError:
        return None
    good = all(number >= 0 for number in numbers) and (not numbers or abs(sum(numbers) - 1) < TOLERANCE)
    return numbers if good else None


WHOLE = Fix("Prepare all of it first", {"streaming": False})


def has_data_kind(config: RunConfig, *kinds: str) -> bool:
    """Whether the stage learns from one of these kinds of data."""
    stage = config.plugin("stage")
    return stage is not None and stage.data_kind in kinds


DATA = (
    Rule(
        ("dataset",),
        lambda c: not c.data.dataset,
        "No data set is chosen. Expected a name, a file or a folder.",
        (Fix("Take the demo data set", {"dataset": "llf_demo"}),),
    ),
    Rule(
        ("val_size", "eval_dataset"),
        lambda c: bool(c.data.eval_dataset) and c.data.val_size > 0,
        lambda c: (
            f"Both an evaluation data set and a held-out part (`val_size` {c.data.val_size:g}) are given. "
            "Expected one of them."
        ),
        (Fix("Hold out nothing", {"val_size": 0}), Fix("Only hold out", {"eval_dataset": None})),
    ),
    Rule(
        ("packing", "train_sampling_strategy"),
        lambda c: bool(c.data.packing) and c.training.train_sampling_strategy == "group_by_length",
        "Packed rows are all about as long, so there is nothing to group by length. Expected one of the two.",
        (
            Fix("Shuffle the packed rows", {"train_sampling_strategy": "random"}),
            Fix("Do not pack", {"packing": None}),
        ),
    ),
    Rule(
        ("packing", "stage"),
        lambda c: bool(c.data.packing) and not has_data_kind(c, "answers", "texts"),
        lambda c: (
            f"Packed rows are for sft and pt: stage {c.stage.stage} learns from whole pairs, answers or prompts, in "
            "batches without padding anyway."
        ),
        (Fix("Do not pack", {"packing": None}),),
    ),
    Rule(
        ("train_on_prompt", "stage"),
        lambda c: c.data.train_on_prompt and not has_data_kind(c, "answers"),
        lambda c: f"Prompts are learned by sft alone, and the stage is {c.stage.stage}.",
        (Fix("Learn the answers only", {"train_on_prompt": False}),),
    ),
    Rule(
        ("mask_history", "stage"),
        lambda c: c.data.mask_history and not has_data_kind(c, "answers"),
        lambda c: f"Earlier answers are learned by sft alone, and the stage is {c.stage.stage}.",
        (Fix("Leave it out", {"mask_history": False}),),
        severity="note",
    ),
    Rule(
        ("trunk_cache_gb", "stage"),
        lambda c: (
            c.training.trunk_cache_gb != type(c.training).model_fields["trunk_cache_gb"].default
            and not has_data_kind(c, "answers", "texts")
        ),
        lambda c: f"Stage {c.stage.stage} computes all layers in each step, so `trunk_cache_gb` has no effect.",
        (Fix("Leave it out", {"trunk_cache_gb": None}),),
        severity="note",
    ),
    Rule(
        ("streaming", "stage"),
        lambda c: c.data.streaming and has_data_kind(c, "judged", "prompts"),
        lambda c: f"Stage {c.stage.stage} looks at several examples together, which a stream does not have.",
        (WHOLE,),
    ),
    Rule(
        ("packing", "fast_path"),
        lambda c: bool(c.data.packing) and not c.training.fast_path,
        "The examples of a packed row are kept apart by the fast path, and `fast_path` is false.",
        (Fix("Take the fast path", {"fast_path": True}), Fix("Do not pack", {"packing": None})),
    ),
    Rule(
        ("packing", "flash_attn"),
        lambda c: bool(c.data.packing) and c.model.flash_attn == "disabled",
        "The examples of a packed row would see each other in plain attention (`flash_attn` is `disabled`).",
        (Fix("Set to auto", {"flash_attn": "auto"}), Fix("Do not pack", {"packing": None})),
    ),
    Rule(
        ("dataset_columns", "dataset_format"),
        lambda c: bool(unknown_columns(c.data.dataset_columns)),
        lambda c: (
            f"Columns can't hold {', '.join(unknown_columns(c.data.dataset_columns))}. "
            f"Expected some of {', '.join(COLUMNS)}, each with the name of a column."
        ),
        (Fix("Let the columns decide", {"dataset_columns": None, "dataset_format": None}),),
    ),
    Rule(
        ("dataset_columns", "dataset_format"),
        lambda c: bool(c.data.dataset_columns) and c.data.dataset_format is None,
        "Columns are named, and `dataset_format` does not say of which format. Expected one.",
        (
            Fix("A question and an answer a row", {"dataset_format": "alpaca"}),
            Fix("A list of messages a row", {"dataset_format": "openai"}),
        ),
    ),
    Rule(
        ("interleave_probs", "mix_strategy"),
        lambda c: c.data.interleave_probs is not None and c.data.mix_strategy == "concat",
        "Shares are given, and `mix_strategy: concat` takes the data sets one after the other.",
        (
            Fix("Take turns", {"mix_strategy": "interleave_under"}),
            Fix("No shares", {"interleave_probs": None}),
        ),
    ),
    Rule(
        ("interleave_probs", "dataset"),
        lambda c: shares(c.data.interleave_probs) is None,
        lambda c: f"The shares are {','.join(c.data.interleave_probs or ())}. Expected numbers from 0 that sum to 1.",
        (Fix("No shares", {"interleave_probs": None}),),
    ),
    Rule(
        ("interleave_probs", "dataset"),
        lambda c: len(c.data.interleave_probs or c.data.dataset or ()) != len(c.data.dataset or ()),
        lambda c: (
            f"There are {len(c.data.dataset or ())} data sets and {len(c.data.interleave_probs or ())} shares. "
            "Expected one for each."
        ),
        (Fix("No shares", {"interleave_probs": None}),),
    ),
    Rule(
        ("interleave_probs", "mix_strategy"),
        lambda c: (
            c.data.mix_strategy in {"interleave_over", "interleave_once"}
            and min(shares(c.data.interleave_probs) or (1.0,)) < LEAST_SHARE
        ),
        lambda c: (
            f"The strategy {c.data.mix_strategy} goes on until each data set is used up, and a share is "
            f"{exact(min(shares(c.data.interleave_probs) or (1.0,)))}: that takes too long. Expected at least "
            f"{exact(LEAST_SHARE)}, or the set taken out."
        ),
        (
            Fix("Stop with the first", {"mix_strategy": "interleave_under"}),
            Fix("No shares", {"interleave_probs": None}),
        ),
    ),
    Rule(
        ("mix_strategy", "dataset"),
        lambda c: c.data.mix_strategy != "concat" and len(c.data.dataset or ()) == 1,
        "There is one data set, so there is nothing to take turns with. Expected several, or `concat`.",
        (Fix("Set to concat", {"mix_strategy": "concat", "interleave_probs": None}),),
    ),
    Rule(
        ("tool_format", "template"),
        lambda c: c.data.tool_format is not None and c.data.template is None,
        "The model's own chat template decides how functions are called. Expected a `template` beside `tool_format`.",
        (Fix("Leave it to the model's template", {"tool_format": None}),),
    ),
    Rule(
        ("mask_history", "train_on_prompt"),
        lambda c: c.data.mask_history and c.data.train_on_prompt,
        "One says to learn the last answer only, the other to learn the prompts too. Expected one of them.",
        (
            Fix("Learn the last answer only", {"train_on_prompt": False}),
            Fix("Learn the prompts too", {"mask_history": False}),
        ),
    ),
    Rule(
        ("streaming", "max_steps"),
        lambda c: c.data.streaming and c.training.max_steps <= 0,
        "Nobody knows how many examples a streamed data set has, so epochs cannot be counted. Expected `max_steps`.",
        (Fix("Train for 1,000 steps", {"max_steps": 1000}), WHOLE),
    ),
    Rule(
        ("val_size", "streaming"),
        lambda c: c.data.streaming and 0 < c.data.val_size < 1,
        lambda c: (
            f"A share of a streamed data set is not known (`val_size` is {c.data.val_size:g}). "
            "Expected a number of examples."
        ),
        (Fix("Hold out the first 100", {"val_size": 100}), WHOLE),
    ),
    Rule(
        ("drop_duplicates", "streaming"),
        lambda c: c.data.streaming and c.data.drop_duplicates,
        "A streamed data set is not read as a whole, so its copies are not known.",
        (Fix("Keep copies", {"drop_duplicates": False}), WHOLE),
    ),
    Rule(
        ("train_sampling_strategy", "streaming"),
        lambda c: c.data.streaming and c.training.train_sampling_strategy != "random",
        lambda c: (
            "Streamed examples come in the order of their data set, shuffled within the buffer: "
            f"`train_sampling_strategy` cannot be {c.training.train_sampling_strategy}."
        ),
        (Fix("Shuffle within the buffer", {"train_sampling_strategy": "random"}), WHOLE),
    ),
    Rule(
        ("dataloader_num_workers", "streaming"),
        lambda c: c.data.streaming and c.training.dataloader_num_workers > 0,
        "Streamed examples are prepared in order by the trainer, or by `preprocessing_num_workers` processes; loading "
        "processes are not started.",
        (Fix("Start none", {"dataloader_num_workers": 0}),),
        severity="note",
    ),
    Rule(
        ("val_size", "max_samples", "dataset"),
        lambda c: (
            c.data.max_samples is not None
            and c.data.val_size >= 1
            and c.data.val_size >= c.data.max_samples * len(c.data.dataset or ())
        ),
        lambda c: (
            f"All examples are held out: `val_size` is {c.data.val_size:g}, and at most {c.data.max_samples} "
            "are taken of each data set."
        ),
        (HOLD_OUT,),
    ),
)
