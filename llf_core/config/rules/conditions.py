"""Conditions that several rules share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix
from llf_core.config.registry import method_of, modifiers_of, stage_of
from llf_core.config.strategies import STRATEGIES

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

HOLD_OUT = Fix("Hold out 5 %", {"val_size": 0.05})  # a share that is chosen by hand
NOTHING_HELD_OUT = "there is no evaluation data: `val_size` is 0. Expected a share above 0, or an evaluation data set."

NO_DATA = "there is no evaluation data (`val_size` or `eval_dataset`)"


def evaluates(c: ConfigValues) -> bool:
    """Whether the config has evaluation data: a data set of its own or a validation split."""
    return bool(c.data.eval_dataset) or c.data.val_size > 0


def never_evaluated(c: ConfigValues) -> bool:
    """Whether the config has evaluation data, but never evaluates during training."""
    return evaluates(c) and c.training.eval_strategy == "no"


def no_answers_reason(c: ConfigValues) -> str:
    """Why a run generates no answers for `metrics` at its evaluations; empty if it does."""
    stage = stage_of(c)
    if stage.has_reward_head or stage.data_kind not in {"answers", "pairs"}:
        return f"stage {stage.name} has no validation examples with a prompt and an expected answer"
    if c.data.streaming:
        return "validation examples of streamed data are not stored"
    return "" if evaluates(c) else NO_DATA


def no_accuracy_reason(c: ConfigValues) -> str:
    """Why the evaluations of a run cannot measure the accuracy of tokens; empty if they do."""
    stage = stage_of(c)
    if not stage.token_accuracy:
        return f"the loss of stage {stage.name} is not of single tokens"
    return "" if evaluates(c) else NO_DATA


def no_sets_reason(c: ConfigValues) -> str:
    """Why the evaluations of a run cannot tell its data sets apart; empty if they do."""
    stage = stage_of(c)
    if stage.uses_rewards:
        return f"stage {stage.name} evaluates the completions to the prompts of all data sets together"
    if c.data.streaming:
        return "validation examples of streamed data are not stored by data set"
    return "" if evaluates(c) else NO_DATA


def weights_frozen(c: ConfigValues) -> bool:
    """Whether the base model's weights are frozen."""
    return method_of(c).frozen_base


def joins_texts(c: ConfigValues) -> bool:
    """Whether texts are joined and cut into blocks of `cutoff_len`: in pre-training, unless `packing` is false."""
    return stage_of(c).data_kind == "texts" and c.data.packing is not False


def packs_examples(c: ConfigValues) -> bool:
    """Whether examples, which do not attend to each other, are packed into rows: texts are joined instead."""
    return bool(c.data.packing) and stage_of(c).data_kind != "texts"


def shards_weights(c: ConfigValues) -> bool:
    """Whether each of several processes keeps only its share of the weights."""
    return STRATEGIES[c.launch.strategy].shards and c.launch.ranks > 1


def whole_load_reason(c: ConfigValues, *, gguf: bool) -> str:
    """Why each process, and not the first one alone, loads all weights before they are sharded.

    It is the end of a sentence, and empty if the first one alone does.

    Args:
        gguf: whether the model is a GGUF file.
    """
    if gguf:
        return "the model is a GGUF file"
    if c.model.quantization_bit is not None:
        return "they are quantized while they are loaded"
    if c.model.adapter_name_or_path:
        return "there are adapters in adapter_name_or_path"
    return next((f"{one.switch} reads them" for one in modifiers_of(c) if one.reads_weights), "")
