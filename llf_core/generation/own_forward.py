"""A model's forward without accelerate's wrapper."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel


@contextmanager
def without_accelerate(model: PreTrainedModel) -> Iterator[None]:
    """Context manager that removes accelerate's wrapper from a model's forward while it generates.

    With mixed precision the wrapper autocasts to half precision and copies every output to float32, for each token.
    """
    wrapped, own = model.__dict__.get("forward"), model.__dict__.get("_original_forward")
    if wrapped is None or own is None:
        yield
        return
    model.forward = own
    try:
        yield
    finally:
        model.forward = wrapped
