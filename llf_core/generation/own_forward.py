"""A model's forward without accelerate's wrapper."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def own_forward(model: Any) -> Iterator[None]:
    """Context manager that removes accelerate's wrapper from a model's forward, which autocasts to half precision."""
    wrapped, own = model.__dict__.get("forward"), model.__dict__.get("_original_forward")
    if wrapped is None or own is None:
        yield
        return
    model.forward = own
    try:
        yield
    finally:
        model.forward = wrapped
