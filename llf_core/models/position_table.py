from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

NAMES = ("wpe", "embed_positions", "position_embeddings", "positions_embed", "pos_encoding")
"""transformers' names for a table of positions: a module of GPT-2, OPT or BERT, a tensor of GPT-J or CTRL."""


def position_limit(model: nn.Module) -> int | None:
    """Number of tokens that a model has positions for; None where they are computed for any position, as by RoPE."""
    return min((size for path, module in model.named_modules() for size in _sizes(path, module)), default=None)


def first_position(model: nn.Module) -> int:
    """Row of the first token in a model's table of positions: 2 for RoBERTa, whose first rows are padding; else 0."""
    return max((_padding_rows(one) for path, one in model.named_modules() if _is_table(one, path)), default=0)


def _sizes(path: str, module: nn.Module) -> Iterator[int]:
    from torch import Tensor

    if _is_table(module, path):
        # the offset of OPT, whose first two rows are of padding
        yield module.num_embeddings - int(getattr(module, "offset", 0)) - _padding_rows(module)
    for name in NAMES:
        table = getattr(module, name, None)
        if isinstance(table, Tensor) and table.dim() == 2:  # noqa: PLR2004 - positions and their values
            yield len(table)


def _is_table(module: nn.Module, path: str) -> TypeGuard[nn.Embedding]:
    from torch import nn

    return isinstance(module, nn.Embedding) and not {*NAMES}.isdisjoint(path.split("."))  # perhaps in one of PEFT


def _padding_rows(table: nn.Embedding) -> int:
    """Rows before the positions of RoBERTa, XLM-R, CamemBERT and data2vec."""
    return 0 if table.padding_idx is None else table.padding_idx + 1
