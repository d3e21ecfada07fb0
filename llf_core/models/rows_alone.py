"""Computes the rows of a padded batch one by one, in models whose attention padding would change."""

from __future__ import annotations

import inspect
from types import MethodType
from typing import TYPE_CHECKING, Any

from llf_core.config.name_checks.architecture_properties import indexed_types

if TYPE_CHECKING:
    from torch import Tensor, nn


def compute_rows_alone(model: nn.Module) -> None:
    """Have indexed attention compute each row of a padded batch without its padding, as it computes the row alone.

    Its indexer breaks ties by the number of columns.
    """
    for module in _decoders(model):
        module.forward = MethodType(_alone(inspect.signature(type(module).forward)), module)


def computes_rows_alone(model: nn.Module) -> bool:
    """Whether `compute_rows_alone` changes a model."""
    return bool(_decoders(model))


def _decoders(model: nn.Module) -> list[nn.Module]:
    return [
        module
        for module in model.modules()
        if getattr(getattr(module, "config", None), "model_type", None) in indexed_types() and hasattr(module, "layers")
    ]


def _alone(signature: inspect.Signature) -> Any:
    def forward(self: Any, *args: object, **kwargs: Any) -> Any:
        """Computes `[batch, seq]` tokens with a mask and without a cache row by row."""
        import torch

        mask: Tensor | None = kwargs.get("attention_mask")
        plain = type(self).forward
        if args or kwargs.get("use_cache") or mask is None or mask.ndim != 2:  # noqa: PLR2004
            return plain(self, *args, **kwargs)
        if mask.shape[1] <= self.config.index_topk or mask.all():
            return plain(self, **kwargs)
        rows = []
        for row, real in enumerate(mask.bool()):
            own = {
                key: value[row : row + 1, real] if getattr(value, "shape", ())[:2] == mask.shape else value
                for key, value in kwargs.items()
            }
            found = plain(self, **own | {"attention_mask": None, "use_cache": False})
            hidden = found.last_hidden_state
            rows.append(hidden.new_zeros(mask.shape[1], hidden.shape[2]).masked_scatter(real[:, None], hidden))
        return type(found)(last_hidden_state=torch.stack(rows))

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward
