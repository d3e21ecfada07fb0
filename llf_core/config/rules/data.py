"""Rules about the training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.number_format import exact
from llf_core.config.registry import stage_of
from llf_core.config.rule import Fix, Rule
from llf_core.config.rules.conditions import HOLD_OUT, joins_texts, packs_examples

if TYPE_CHECKING:
    from llf_core.config.declaration import DataKind
    from llf_core.config.values import ConfigValues

TOLERANCE = 1e-6
"""Tolerance of the sum of `interleave_probs`, for shares with few digits; chosen by hand."""
COLUMNS = (
    "prompt", "query", "response", "history", "messages", "system", "tools",
    "images", "videos", "audios", "chosen", "rejected", "kto_tag",
)  # fmt: skip
"""Roles of columns, in LLaMA-Factory's words."""


def _unknown_columns(given: dict[str, object] | None) -> list[str]:
    return [key for key, column in (given or {}).items() if key not in COLUMNS or not isinstance(column, str)]


def _wrong_renames(given: dict[str, object] | None) -> list[str]:
    """Keys in `rename_fields` that have a meaning of their own or no new name."""
    return [key for key, name in (given or {}).items() if key in OWN_FIELDS or not isinstance(name, str) or not name]


OWN_FIELDS = ("role", "content")
"""Keys of a message that every format sets itself."""
LEAST_SHARE = 0.001
"""Minimum share of a data set that is to be used up; at it, an example takes a thousand turns."""


def shares(given: tuple[str, ...] | None) -> tuple[float, ...] | None:
    """Parse `interleave_probs`, such as `0.7,0.3`; empty for None.

    Returns:
        None if they are not numbers of at least 0 with the sum 1, give or take `TOLERANCE`.
    """
    try:
        numbers = tuple(float(one) for one in given or ())
    except ValueError:
        return None
    good = all(number >= 0 for number in numbers) and (not numbers or abs(sum(numbers) - 1) < TOLERANCE)
    return numbers if good else None


WHOLE = Fix("Switch off streaming", {"streaming": False})


def has_data_kind(config: ConfigValues, *kinds: DataKind) -> bool:
    """Whether the stage trains on data of one of these kinds."""
    return stage_of(config).data_kind in kinds


DATA = (
    Rule(
        ("dataset",),
        lambda c: not c.data.dataset,
        "No data set is set. Expected a name, a file or a folder.",
        (Fix("Use the demo data set", {"dataset": "llf_demo"}),),
    ),
    Rule(
        ("val_size", "eval_dataset"),
        lambda c: bool(c.data.eval_dataset) and c.data.val_size > 0,
        lambda c: (
            f"Both an evaluation data set and a validation split (`val_size` {c.data.val_size:g}) are given. "
            "Expected one of them."
        ),
        (Fix("Set val_size to 0", {"val_size": 0}), Fix("Use the split only", {"eval_dataset": None})),
    ),
    Rule(
        ("packing", "train_sampling_strategy"),
        lambda c: packs_examples(c) and c.training.train_sampling_strategy == "group_by_length",
        "Packed rows have about the same length, so grouping by length has no effect. Expected one of the two.",
        (
            Fix("Shuffle the packed rows", {"train_sampling_strategy": "random"}),
            Fix("Switch off packing", {"packing": None}),
        ),
    ),
    Rule(
        ("packing", "stage"),
        lambda c: bool(c.data.packing) and not has_data_kind(c, "answers", "texts"),
        lambda c: (
            f"Packed rows are for sft and pt: stage {c.stage.stage} trains on whole pairs, responses or prompts, in "
            "batches without padding anyway."
        ),
        (Fix("Switch off packing", {"packing": None}),),
    ),
    Rule(
        ("packing", "stage"),
        lambda c: has_data_kind(c, "texts") and not joins_texts(c) and c.data.cutoff_strategy != "drop",
        "Each text is an example of its own, and one longer than `cutoff_len` is split into several, so that all of it "
        "is trained on. LLaMA-Factory truncates it.",
        severity="note",
    ),
    Rule(
        ("train_on_prompt", "stage"),
        lambda c: c.data.train_on_prompt and not has_data_kind(c, "answers"),
        lambda c: f"`train_on_prompt` is for stage sft only, and the stage is {c.stage.stage}.",
        (Fix("Train on responses only", {"train_on_prompt": False}),),
    ),
    Rule(
        ("mask_history", "stage"),
        lambda c: c.data.mask_history and not has_data_kind(c, "answers"),
        lambda c: f"`mask_history` is for stage sft only, and the stage is {c.stage.stage}.",
        (Fix("Remove it", {"mask_history": False}),),
        severity="note",
    ),
    Rule(
        ("streaming", "stage"),
        lambda c: c.data.streaming and has_data_kind(c, "unpaired_preferences", "prompts"),
        lambda c: f"Stage {c.stage.stage} compares several examples, which streaming does not support.",
        (WHOLE,),
    ),
    Rule(
        ("packing", "fast_path"),
        lambda c: packs_examples(c) and not c.training.fast_path,
        "Packing needs the fast path to separate the examples of a row, and `fast_path` is false.",
        (Fix("Use the fast path", {"fast_path": True}), Fix("Switch off packing", {"packing": None})),
    ),
    Rule(
        ("packing", "flash_attn"),
        lambda c: packs_examples(c) and c.model.flash_attn == "disabled",
        "The examples of a packed row would attend to each other in plain attention (`flash_attn` is `disabled`).",
        (Fix("Set to auto", {"flash_attn": "auto"}), Fix("Switch off packing", {"packing": None})),
    ),
    Rule(
        ("dataset_columns", "dataset_format"),
        lambda c: bool(_unknown_columns(c.data.dataset_columns)),
        lambda c: (
            f"Columns cannot have the role {', '.join(_unknown_columns(c.data.dataset_columns))}. "
            f"Expected some of {', '.join(COLUMNS)}, each with a column name."
        ),
        (Fix("Detect automatically", {"dataset_columns": None, "dataset_format": None}),),
    ),
    Rule(
        ("dataset_columns", "dataset_format"),
        lambda c: bool(c.data.dataset_columns) and c.data.dataset_format is None,
        "`dataset_columns` is set, and `dataset_format` is not. Expected both.",
        (
            Fix("Alpaca: prompt and response columns", {"dataset_format": "alpaca"}),
            Fix("Messages: one list per row", {"dataset_format": "openai"}),
        ),
    ),
    Rule(
        ("rename_fields",),
        lambda c: bool(_wrong_renames(c.data.rename_fields)),
        lambda c: (
            f"`rename_fields` cannot rename {', '.join(_wrong_renames(c.data.rename_fields))}. Expected keys of "
            "messages other than `role` and `content`, each with its new name."
        ),
        (Fix("Rename nothing", {"rename_fields": None}),),
    ),
    Rule(
        ("interleave_probs", "mix_strategy"),
        lambda c: c.data.interleave_probs is not None and c.data.mix_strategy == "concat",
        "`interleave_probs` is set, and `mix_strategy: concat` does not use it.",
        (
            Fix("Interleave", {"mix_strategy": "interleave_under"}),
            Fix("Remove the probabilities", {"interleave_probs": None}),
        ),
    ),
    Rule(
        ("interleave_probs", "dataset"),
        lambda c: shares(c.data.interleave_probs) is None,
        lambda c: (
            f"`interleave_probs` is {','.join(c.data.interleave_probs or ())}. "
            "Expected numbers of at least 0 that sum to 1."
        ),
        (Fix("Remove the probabilities", {"interleave_probs": None}),),
    ),
    Rule(
        ("interleave_probs", "dataset"),
        lambda c: len(c.data.interleave_probs or c.data.dataset or ()) != len(c.data.dataset or ()),
        lambda c: (
            f"There are {len(c.data.dataset or ())} data sets and {len(c.data.interleave_probs or ())} probabilities. "
            "Expected one for each."
        ),
        (Fix("Remove the probabilities", {"interleave_probs": None}),),
    ),
    Rule(
        ("interleave_probs", "mix_strategy"),
        lambda c: (
            c.data.mix_strategy in {"interleave_over", "interleave_once"}
            and min(shares(c.data.interleave_probs) or (1.0,)) < LEAST_SHARE
        ),
        lambda c: (
            f"The strategy {c.data.mix_strategy} repeats data sets until each is exhausted, and a probability is "
            f"{exact(min(shares(c.data.interleave_probs) or (1.0,)))}, which takes too long. Expected at least "
            f"{exact(LEAST_SHARE)}, or without the data set."
        ),
        (
            Fix("Stop at the first exhausted", {"mix_strategy": "interleave_under"}),
            Fix("Remove the probabilities", {"interleave_probs": None}),
        ),
    ),
    Rule(
        ("mix_strategy", "dataset"),
        lambda c: c.data.mix_strategy != "concat" and len(c.data.dataset or ()) == 1,
        "There is only one data set, so there is nothing to interleave. Expected several, or `concat`.",
        (Fix("Set to concat", {"mix_strategy": "concat", "interleave_probs": None}),),
    ),
    Rule(
        ("tool_format", "template"),
        lambda c: c.data.tool_format is not None and c.data.template is None,
        "`tool_format` needs a named `template`: the chat template of the model already defines tool calls.",
        (Fix("Remove tool_format", {"tool_format": None}),),
    ),
    Rule(
        ("mask_history", "train_on_prompt"),
        lambda c: c.data.mask_history and c.data.train_on_prompt,
        "`mask_history` trains on the last response only, `train_on_prompt` on prompts too. Expected one of them.",
        (
            Fix("Train on the last response only", {"train_on_prompt": False}),
            Fix("Train on prompts too", {"mask_history": False}),
        ),
    ),
    Rule(
        ("split_special_tokens", "stage"),
        lambda c: c.data.split_special_tokens and stage_of(c).samples_groups,
        lambda c: (
            f"`split_special_tokens` applies to data that LLF tokenizes, and TRL tokenizes the prompts of stage "
            f"{c.stage.stage}. Expected it to be false."
        ),
        (Fix("Set to false", {"split_special_tokens": False}),),
    ),
    Rule(
        ("streaming", "max_steps"),
        lambda c: c.data.streaming and c.training.max_steps <= 0,
        "The length of a streamed data set is unknown, so epochs cannot be counted. Expected `max_steps`.",
        (Fix("Train for 1,000 steps", {"max_steps": 1000}), WHOLE),
    ),
    Rule(
        ("val_size", "streaming"),
        lambda c: c.data.streaming and 0 < c.data.val_size < 1,
        lambda c: (
            f"A share of a streamed data set cannot be computed (`val_size` is {c.data.val_size:g}). "
            "Expected a number of examples."
        ),
        (Fix("Hold out the first 100", {"val_size": 100}), WHOLE),
    ),
    Rule(
        ("drop_duplicates", "streaming"),
        lambda c: c.data.streaming and c.data.drop_duplicates,
        "Duplicates of a streamed data set cannot be detected, since it is not read as a whole.",
        (Fix("Keep duplicates", {"drop_duplicates": False}), WHOLE),
    ),
    Rule(
        ("train_sampling_strategy", "streaming"),
        lambda c: c.data.streaming and c.training.train_sampling_strategy != "random",
        lambda c: (
            "Streamed examples keep the order of the data set, shuffled within the buffer: "
            f"`train_sampling_strategy` cannot be {c.training.train_sampling_strategy}."
        ),
        (Fix("Shuffle within the buffer", {"train_sampling_strategy": "random"}), WHOLE),
    ),
    Rule(
        ("dataloader_num_workers", "streaming"),
        lambda c: c.data.streaming and c.training.dataloader_num_workers > 0,
        "Streamed examples are prepared in order by the trainer, or by `preprocessing_num_workers` processes; data "
        "loader workers are not used.",
        (Fix("Set to 0", {"dataloader_num_workers": 0}),),
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
            f"No training examples remain: `val_size` is {c.data.val_size:g}, and at most {c.data.max_samples} "
            "are used of each data set."
        ),
        (HOLD_OUT,),
    ),
    *(
        Rule(
            (f"{kind}_min_pixels", f"{kind}_max_pixels"),
            lambda c, kind=kind: getattr(c.data, f"{kind}_min_pixels") > getattr(c.data, f"{kind}_max_pixels"),  # type: ignore[misc]
            lambda c, kind=kind: (  # type: ignore[misc]
                f"`{kind}_min_pixels` {getattr(c.data, f'{kind}_min_pixels'):,} is larger than "
                f"`{kind}_max_pixels` {getattr(c.data, f'{kind}_max_pixels'):,}."
            ),
            (Fix("Set both to their defaults", {f"{kind}_min_pixels": None, f"{kind}_max_pixels": None}),),
        )
        for kind in ("image", "video")
    ),
    Rule(
        ("freeze_language_model", "freeze_vision_tower", "freeze_multi_modal_projector"),
        lambda c: (
            c.method.freeze_language_model and c.method.freeze_vision_tower and c.method.freeze_multi_modal_projector
        ),
        "Language model, vision tower and projector are frozen, so nothing would be trained.",
        (
            Fix("Train the projector", {"freeze_multi_modal_projector": False}),
            Fix("Train the language model", {"freeze_language_model": None}),
        ),
    ),
)
