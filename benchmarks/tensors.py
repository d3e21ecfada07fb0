"""Counts the bytes of tensors in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def stored(tensors: Iterable[Any]) -> int:
    """Bytes of the storages of tensors, each counted once."""
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


def nested(value: Any) -> Iterator[Any]:
    """All tensors in dicts, lists and attributes of a value, such as the scales that bitsandbytes keeps of a weight."""
    if hasattr(value, "untyped_storage"):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from nested(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from nested(one)
    elif type(value).__name__ == "QuantState":
        yield from nested(vars(value))


def model_tensors(model: Any) -> Iterator[Any]:
    """Parameters, buffers and the scales of quantized parameters of a model."""
    yield from model.buffers()
    for one in model.parameters():
        yield one
        yield from nested(getattr(one, "quant_state", None))


def quantized(model: Any) -> tuple[int, int]:
    """Bytes of a model's 4-bit weights with their scales, and how many parameters they stand for."""
    chosen = [one for one in model.parameters() if getattr(one, "quant_state", None) is not None]
    size = stored(tensor for one in chosen for tensor in (one, *nested(one.quant_state)))
    return size, sum(one.quant_state.shape.numel() for one in chosen)
