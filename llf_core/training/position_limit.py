"""Checks that examples and completions fit into the position embeddings of a model, before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.ignore_index import IGNORED
from llf_core.config.registry import stage_of
from llf_core.data import DataError, PackedRows
from llf_core.data.conversation import UNPAIRED
from llf_core.data.example_store import lengths
from llf_core.data.streaming import Stream
from llf_core.data.validation_split import prompts_of
from llf_core.models.architecture import position_limit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from torch import nn

    from llf_core.stages.base.context import TrainingContext


def check_positions(context: TrainingContext) -> None:
    """Check that no example, and no prompt with its longest completion, has more tokens than the model has positions.

    Virtual tokens count too. For KTO, the completion may be another example's
    (`llf_core.stages.kto.mismatched`). Streams, vision models and prompts that are left out are not checked.

    Raises:
        DataError: one has more; no prompt remains, or a data set can no longer be read.
    """
    data = context.data
    limit = None if context.processor is not None else position_limit(context.model)
    if limit is None or isinstance(data.train, Stream):
        return
    sets = [data.train, *([] if data.eval is None else [data.eval])]
    problem = _too_long(context, sets, limit)
    stage = stage_of(context.config)
    if problem and stage.uses_rewards and stage.scored_by_functions(context.config):
        # the records are read again only where a prompt that is left out may have been counted
        prompts = prompts_of(context.config, data, (context.folder.path,))
        kept = [data.examples.select(prompts.places)]
        kept += [] if data.eval is None else [data.eval.select(prompts.eval_places)]
        problem = _too_long(context, kept, limit)
    if problem:
        raise DataError(problem)


def _too_long(context: TrainingContext, sets: Sequence[object], limit: int) -> str:
    """Sentences about examples of some sets that do not fit into `limit` positions; empty if all fit."""
    config = context.config
    longest = max(map(_longest, sets))
    drawn = stage_of(config).completion_tokens(config, longest)
    other = 0
    if stage_of(config).data_kind == UNPAIRED and min(2 * longest, config.data.cutoff_len) > limit:
        other = max(_longest_mismatched(examples, config.data.cutoff_len) for examples in sets)
    ahead = _virtual_tokens(context.model)
    if ahead + max(longest + drawn, other) <= limit:
        return ""
    what, keys = f"the longest example has {longest:,} tokens", "cutoff_len"
    if other > longest:
        what = f"a prompt with the completion of another example, which KTO compares, has up to {other:,} tokens"
    if drawn:
        what = f"the longest prompt has {longest:,} tokens and its completion at most {drawn:,}"
        keys = f"cutoff_len or {stage_of(config).completion_limit}"
    taken = (
        f", of which those that finetuning_type {config.method.finetuning_type} trains take {ahead:,}" if ahead else ""
    )
    return (
        f"{context.source.name} has positions for {limit:,} tokens{taken}, and {what}. Lower {keys}, or use a model "
        "without such a limit."
    )


def _virtual_tokens(model: nn.Module) -> int:
    return getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0


def _longest(examples: Any) -> int:
    whole = examples.examples if isinstance(examples, PackedRows) else examples
    columns = [name for name in ("input_ids", "rejected_ids") if name in whole.column_names]
    return max(int(lengths(whole, name).max(initial=0)) for name in columns)


def _longest_mismatched(examples: Any, cutoff: int) -> int:
    """Upper bound of the number of tokens of a prompt with the completion of another example."""
    whole = lengths(examples)
    prompts = np.fromiter(
        (next(at for at, label in enumerate(one) if label != IGNORED) for one in examples["labels"]),
        np.int64,
        len(whole),
    )
    return int(min(prompts.max(initial=0) + (whole - prompts).max(initial=0), cutoff))
