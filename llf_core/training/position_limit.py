"""Checks that examples and completions fit into the position embeddings of a model, before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from llf_core.config.ignore_index import IGNORED
from llf_core.config.registry import stage_of
from llf_core.data import DataError, PackedRows
from llf_core.data.example_store import lengths
from llf_core.data.formats.conversation import UNPAIRED
from llf_core.data.streaming import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from llf_core.stages.base.context import TrainingContext

NAMES = ("wpe", "embed_positions", "position_embeddings")
"""What transformers calls a table of positions: of GPT-2, OPT or GPT-Neo a module, of GPT-J or CodeGen a tensor."""


def position_limit(model: nn.Module) -> int | None:
    """Number of tokens that a model has positions for; None where they are computed for any position, as by RoPE.

    Beyond it, an index is out of range, which ends a process on a GPU without a message.

    Args:
        model: a language model, wrapped by PEFT or not.
    """
    return min((size for path, module in model.named_modules() for size in _sizes(path, module)), default=None)


def _sizes(path: str, module: nn.Module) -> Iterator[int]:
    if isinstance(module, nn.Embedding) and not {*NAMES}.isdisjoint(
        path.split(".")
    ):  # perhaps inside a wrapper of PEFT
        yield module.num_embeddings - int(getattr(module, "offset", 0))  # OPT's first two are of padding
    for name in NAMES:
        table = getattr(module, name, None)
        if isinstance(table, Tensor) and table.dim() == 2:  # noqa: PLR2004 - positions and their values
            yield len(table)


def check_positions(context: TrainingContext) -> None:
    """Check that no example, and no prompt with its longest completion, has more tokens than the model has positions.

    A trained prompt or prefix takes positions too. For KTO, such a completion is also that of another example
    (`llf_core.stages.kto.stage.mismatched`). Nothing is known of the examples of a stream, and a vision model has
    positions of its own for pictures: both pass.

    Args:
        context: the training context.

    Raises:
        DataError: one has more.
        PluginError: two installed packages declare the same stage.
    """
    config, data = context.config, context.data
    limit = None if context.processor is not None else position_limit(context.model)
    if limit is None or isinstance(data.train, Stream):
        return
    sets = [data.train, *([] if data.eval is None else [data.eval])]
    longest = max(map(_longest, sets))
    drawn = stage_of(config).completion_tokens(config, longest)
    other = 0
    if stage_of(config).data_kind == UNPAIRED and min(2 * longest, config.data.cutoff_len) > limit:
        other = max(_longest_mismatched(examples, config.data.cutoff_len) for examples in sets)
    ahead = _virtual_tokens(context.model)
    if ahead + max(longest + drawn, other) <= limit:
        return
    what, keys = f"the longest example has {longest:,} tokens", "cutoff_len"
    if other > longest:
        what = f"a prompt with the completion of another example, which KTO compares, has up to {other:,} tokens"
    if drawn:
        what = f"the longest prompt has {longest:,} tokens and its completion at most {drawn:,}"
        keys = f"cutoff_len or {stage_of(config).completion_limit}"
    taken = (
        f", of which those that finetuning_type {config.method.finetuning_type} trains take {ahead:,}" if ahead else ""
    )
    raise DataError(
        f"{context.source.name} has positions for {limit:,} tokens{taken}, and {what}. Lower {keys}, or use a model "
        "without such a limit."
    )


def _virtual_tokens(model: nn.Module) -> int:
    """Number of tokens of a trained prompt or prefix, which come before those of the examples."""
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
