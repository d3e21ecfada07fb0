"""Checksums of tensors, to verify bit by bit that loaded tensors are the saved ones, and counts of parameters."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from llf_core.models.errors import ModelError
from llf_core.runs import RunFolder
from llf_core.runs.files import json_bytes, replace_file
from llf_core.untrusted import HISTORY_BYTES, read_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn


DEFAULT_ADAPTER = "default"
"""PEFT's name of a model's first adapter."""

BLOCK_WORDS = 1 << 17
"""64-bit words that are hashed at once: 1 MiB fits a cache."""

PRIME = 0x9E3779B97F4A7C15
"""Multiplier that combines the hashes of blocks. It is odd, so no block's hash is lost."""

COPY_BYTES = 64 << 20
"""Bytes that are copied from an accelerator at once."""
WORD_MASK = (1 << 64) - 1
MAX_NAMED = 3


class Checksum(NamedTuple):
    """Fingerprint of a tensor.

    Attributes:
        dtype: as torch names it, without `torch.`.
        sum: sum of the values in float32. For people only: it depends on the number of threads.
        hash: hash of the bytes, 16 hexadecimal digits. A change of any single value changes it.
    """

    dtype: str
    sum: float
    hash: str


class Difference(NamedTuple):
    """A tensor that differs from what was saved; `found` is None if it is missing."""

    name: str
    expected: Checksum
    found: Checksum | None

    def __str__(self) -> str:
        """The hashes are shown if the sums look equal."""
        if self.found is None:
            return f"{self.name} (missing)"
        one, other = (f"{found.sum:.9g}" for found in (self.expected, self.found))
        if one == other:
            one, other = (f"hash {found.hash}" for found in (self.expected, self.found))
        else:
            one, other = f"sum {one}", f"sum {other}"
        return f"{self.name} (expected {one}, found {other})"


def checkpoint_tensors(model: nn.Module, auxiliary_models: Sequence[nn.Module] = ()) -> dict[str, Tensor]:
    """Tensors of any shape that a checkpoint must restore, by name: the trained ones of a PEFT model, else all."""
    adapter = hasattr(model, "peft_config")
    whole = set() if adapter else {name for name, _ in _named(model)}
    return {
        name: tensor
        for name, tensor in named_tensors(model, auxiliary_models).items()
        if tensor.requires_grad or name in whole
    }


def named_tensors(model: nn.Module, auxiliary_models: Sequence[nn.Module] = ()) -> dict[str, Tensor]:
    """All parameters and persistent buffers, of any shape, by the names that `checkpoint_tensors` uses."""
    found = dict(_named(model))
    known = {id(tensor) for tensor in found.values()}
    for number, other in enumerate(auxiliary_models):
        found |= {f"beside.{number}.{name}": tensor for name, tensor in _named(other) if id(tensor) not in known}
    return found


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    for place, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:  # noqa: SLF001 - torch has no other way to ask
                yield f"{place}.{name}".removeprefix("."), buffer


def checksums(tensors: Mapping[str, Tensor]) -> dict[str, Checksum]:
    """Compute the checksum of each tensor, of any shape and on any device.

    The hash is a polynomial over blocks of 64-bit words, each a dot product with odd pseudo-random weights (those of
    SplitMix64, Steele et al., OOPSLA 2014): a change of one word always changes it. It is not cryptographic.
    """
    return {name: _checksum(tensor) for name, tensor in _on_cpu(tensors)}


def differences(expected: Mapping[str, Sequence[str | float]], tensors: Mapping[str, Tensor]) -> list[Difference]:
    """List the tensors that differ from what was saved or are missing, in the order of `expected`.

    A tensor of another dtype is compared in the expected dtype.

    Args:
        expected: the result of `checksums`, also after a round trip through JSON.
        tensors: of any shape; names that are not in `expected` are ignored.
    """
    import torch

    wanted = {name: _read(name, entry) for name, entry in expected.items()}
    there = {name: tensors[name].detach().to(getattr(torch, wanted[name].dtype)) for name in wanted if name in tensors}
    found = checksums(there)
    pairs = ((name, one, found.get(name)) for name, one in wanted.items())
    return [Difference(name, one, other) for name, one, other in pairs if other is None or other.hash != one.hash]


def list_first(parts: Sequence[str]) -> str:
    """Format the first `MAX_NAMED` parts of a list, and how many more there are."""
    more = f" and {len(parts) - MAX_NAMED:,} more" if len(parts) > MAX_NAMED else ""
    return ", ".join(parts[:MAX_NAMED]) + more


def bitwise_equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of any shape are equal bit by bit, in the dtype of the second: NaN equals NaN, 0 not -0."""
    import torch

    left, right = (each.detach().cpu().reshape(-1).contiguous() for each in (one.to(other.dtype), other))
    return one.shape == other.shape and torch.equal(left.view(torch.uint8), right.view(torch.uint8))


def _read_checksums(folder: Path) -> dict[str, Sequence[str | float]]:
    """Checksums of the result in `folder`; empty if it is no run's `output`."""
    run = RunFolder(folder.parent)
    tensors = read_object(run.output_record, HISTORY_BYTES).get("tensors") if folder == run.output else None
    return tensors if isinstance(tensors, dict) else {}


def check_checksums(model: nn.Module, folder: Path, adapter: str = DEFAULT_ADAPTER) -> None:
    """Verify that a loaded result is what the run has written; a folder that is no run's `output` is not checked.

    Tensors that were loaded in a narrower dtype, or not loaded, are not compared.

    Raises:
        ModelError: a tensor differs.
    """
    record = _read_checksums(folder)
    tensors = named_tensors(model) if record else {}
    if adapter != DEFAULT_ADAPTER:
        part, saved = f".{adapter}.", f".{DEFAULT_ADAPTER}."
        tensors = {name.replace(part, saved): tensor for name, tensor in tensors.items() if part in name}
    wanted = {
        name: entry
        for name, entry in record.items()
        if (tensors[name].element_size() >= _size(name, entry) if name in tensors else hasattr(model, "peft_config"))
    }
    if apart := differences(wanted, tensors):
        raise ModelError(
            f"{folder} does not load as the run saved it: {list_first([str(one) for one in apart])}. Its files were "
            "changed, or the installed libraries drop a part of them. Copy it again, or resume the run from a "
            "checkpoint."
        )


def write_checksums(run: RunFolder, written: Mapping[str, Checksum]) -> None:
    """Store the checksums of a run's result in its `output.json`."""
    replace_file(run.output_record, json_bytes({"format": 1, "tensors": written}), sync=True)


def _size(name: str, entry: Sequence[str | float]) -> int:
    import torch

    dtype: torch.dtype = getattr(torch, _read(name, entry).dtype)
    return dtype.itemsize


def _read(name: str, entry: Sequence[str | float]) -> Checksum:
    import torch

    try:
        dtype, total, digits = entry
        read = Checksum(str(dtype), float(total), str(digits))
    except (TypeError, ValueError):
        read = Checksum("", math.nan, "")
    if not isinstance(getattr(torch, read.dtype, None), torch.dtype):
        raise ModelError(f"The checksum of {name} is {entry!r}. Expected a dtype, a sum and a hash.")
    return read


def _on_cpu(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Flatten tensors `[...]`; those of an accelerator are copied to the CPU in groups."""
    waiting: list[tuple[str, Tensor]] = []
    size = 0
    for name, tensor in tensors.items():
        flat = tensor.detach().reshape(-1)
        if flat.device.type == "cpu":
            yield name, flat
            continue
        if waiting and (flat.dtype != waiting[0][1].dtype or size > COPY_BYTES):
            yield from _moved(waiting)
            waiting, size = [], 0
        waiting.append((name, flat))
        size += flat.numel() * flat.element_size()
    if waiting:
        yield from _moved(waiting)


def _moved(waiting: Sequence[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    import torch

    names, flats = zip(*waiting, strict=True)
    together = flats[0] if len(flats) == 1 else torch.cat(flats)
    return zip(names, together.cpu().split([len(flat) for flat in flats]), strict=True)


def _checksum(flat: Tensor) -> Checksum:
    import torch

    dtype = flat.dtype
    if dtype == torch.float32:
        numbers = flat.numpy()
        total = float(numbers.dot(_ones()[: len(numbers)])) if len(numbers) <= BLOCK_WORDS else flat.sum().item()
    else:
        total = flat.sum(dtype=torch.float32).item()
        numbers = flat.view(torch.uint8).numpy()
    words = numbers.view("u8") if not numbers.nbytes % 8 else _filled(numbers)
    made = len(words)
    for start in range(0, len(words), BLOCK_WORDS):
        block = words[start : start + BLOCK_WORDS]
        made = (made * PRIME + int(block.dot(_weights()[: len(block)]))) & WORD_MASK
    return Checksum(_name(dtype), total, f"{made:016x}")


def _filled(numbers: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Bytes as 64-bit words, padded with zeros."""
    import numpy as np

    raw = numbers.view(np.uint8)
    words: NDArray[np.uint64] = np.concatenate([raw, np.zeros(-len(raw) % 8, np.uint8)]).view(np.uint64)
    return words


@cache
def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def _ones() -> NDArray[np.float32]:
    import numpy as np

    return np.ones(BLOCK_WORDS, np.float32)


@cache
def _weights() -> NDArray[np.uint64]:
    """Pseudo-random odd numbers (the finalizer of SplitMix64)."""
    import numpy as np

    made = np.arange(1, BLOCK_WORDS + 1, dtype=np.uint64) * np.uint64(PRIME)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        made = (made ^ (made >> np.uint64(shift))) * np.uint64(factor)
    return made | np.uint64(1)


QUANTIZED_TENSORS = {"torchao", "optimum"}
"""Packages whose quantized tensors report the dtype they are unpacked to."""

PACKED_NAMES = ("W_q", "qweight", "codes", "weight")
"""Names of the packed weight in layers of HQQ, of GPTQ and AWQ, of AQLM, and of others."""
EXPERT_DIMS = 3
MATRIX_DIMS = 2


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of all and of trained parameters. Tied weights count once; 4-bit weights count unpacked."""
    total = trainable = 0
    for parameter in model.parameters():
        count = parameter_size(parameter)
        total += count
        trainable += count if parameter.requires_grad else 0
    return total, trainable


def parameter_size(parameter: nn.Parameter) -> int:
    """Number of values of a parameter of any shape, quantized or not; packed weights count unpacked."""
    return math.prod(unpacked_shape(parameter))


def unpacked_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Shape of a weight; of a packed one, its shape before packing."""
    packed = getattr(parameter, "quant_state", None)
    return tuple(getattr(parameter, "unpacked_shape", parameter.shape) if packed is None else packed.shape)


def is_packed(tensor: Tensor) -> bool:
    """Whether a weight of any shape is quantized, so that it cannot be read, cast or changed like ordinary numbers.

    Integers and truth values count as quantized, since an ordinary weight has none.
    """
    own_class = type(tensor).__module__.partition(".")[0] in QUANTIZED_TENSORS
    return own_class or not tensor.is_floating_point() or getattr(tensor, "quant_state", None) is not None


def packed_weight(module: nn.Module) -> nn.Parameter | None:
    """The weight of any shape of a linear layer of any quantizer, packed or not; None if a module has none."""
    found = (getattr(module, name, None) for name in PACKED_NAMES)
    return next((one for one in found if one is not None), None)


def is_plain_linear(module: object) -> TypeGuard[nn.Linear]:
    """Whether any object is a linear layer of torch with an ordinary tensor as weight, which may be read directly."""
    from torch import nn

    return type(module) is nn.Linear and not is_packed(module.weight)


def is_quantized_layer(module: nn.Module) -> bool:
    """Whether a module is a linear layer of a quantizer that is no subclass of `nn.Linear`, such as HQQ's or GPTQ's."""
    if not (hasattr(module, "in_features") and hasattr(module, "out_features")) or hasattr(module, "base_layer"):
        return False
    weight = packed_weight(module)
    return weight is not None and not weight.is_floating_point()


def stored_bytes(model: nn.Module) -> int:
    """Bytes of the parameters of a model as they are stored, with the scales of quantized ones."""
    total = sum(_tensor_bytes(parameter) for parameter in model.parameters())
    for module in model.modules():
        meta = getattr(module, "meta", None)  # HQQ keeps its scales there
        total += sum(one.nbytes for one in meta.values() if hasattr(one, "nbytes")) if isinstance(meta, dict) else 0
    return total


def scale_bytes(model: nn.Module) -> int:
    """Bytes of the scales of weights that bitsandbytes has quantized to 4 bits."""
    return sum(map(_scale_bytes, model.parameters()))


def _tensor_bytes(tensor: Any) -> int:
    if type(tensor).__module__.partition(".")[0] in QUANTIZED_TENSORS:
        names, _ = tensor.__tensor_flatten__()
        return sum(_tensor_bytes(getattr(tensor, name)) for name in names)
    return int(tensor.nbytes) + _scale_bytes(tensor)


def _scale_bytes(tensor: Any) -> int:
    state = getattr(tensor, "quant_state", None)
    scales = [] if state is None else [state.absmax, *((state.state2.absmax,) if state.nested else ())]
    return sum(int(one.nbytes) for one in scales)


def expert_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Find expert weights that are stored in one parameter, `[experts, in, out]` or `[experts, out, in]`.

    Their first dimension equals a number of experts among the attributes of their module.
    """
    return {
        path: parameter
        for path, module, parameter in _own_parameters(model)
        if parameter.ndim == EXPERT_DIMS and parameter.shape[0] in _expert_counts(module)
    }


def expert_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Find weights of all experts that are stored as one matrix, `[experts * out, in]`, as in DBRX.

    Another module slices them, so PEFT cannot put an adapter on them.
    """
    return {
        path: parameter
        for path, module, parameter in _own_parameters(model)
        if "Expert" in type(module).__name__
        and parameter.ndim == MATRIX_DIMS
        and any(1 < count < parameter.shape[0] and parameter.shape[0] % count == 0 for count in _expert_counts(module))
    }


def _own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield f"{path}.{name}", module, parameter


def _expert_counts(module: nn.Module) -> set[int]:
    return {value for name, value in vars(module).items() if "expert" in name and type(value) is int}
