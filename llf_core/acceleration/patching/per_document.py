"""Resets the recurrent state of modules at each document of a flattened batch.

A short convolution, a gated delta net or a Mamba mixer is called separately for each document, with its own code and
kernels. The modules that need this are found by changing the tokens before the same ones.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llf_core.acceleration.kernels.attention import bounds_of, forks_of
from llf_core.acceleration.patching.causal_head import CHUNKED
from llf_core.acceleration.patching.fast_forwards import install
from llf_core.acceleration.patching.matching import TEST_ERRORS, is_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from llf_core.acceleration.patching.fast_forwards import Forward

    Call = tuple[tuple[object, ...], dict[str, object]]

HALF = (torch.bfloat16, torch.float16)
ROUNDING, ROUNDING_OF_HALF = 1e-6, 1e-3
"""Relative differences (of norms) that come from the order of summation."""
BOUNDS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "forks", "seq_idx", "record")
"""Arguments about documents, removed in a call for a single document."""


def forward_per_document(self: nn.Module, *args: object, **kwargs: Any) -> object:
    """Forward that calls the module's own for each document of a flattened batch; other batches are not divided.

    Arguments `[1, tokens, …]` are divided by documents. Tokens after the last document get zeros.
    """
    if kwargs.get("cu_seq_lens_q") is None:
        return type(self).forward(self, *args, **kwargs)
    return _called_each(self, args, kwargs, mask=False)


def _called_each(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, Any], *, mask: bool) -> object:
    bounds, forks = bounds_of(kwargs["cu_seq_lens_q"]), forks_of(kwargs.get("forks"))
    plain = {name: value for name, value in kwargs.items() if name not in BOUNDS}
    tokens = _tokens(args, plain)
    pieces = []
    for taken, kept in _documents(bounds, forks):
        length = sum(each.stop - each.start for each in taken)
        own = _part(plain, taken, tokens)
        if mask:
            own["attention_mask"] = _chunk_mask(length, chunk_size_of(module), _first_of(args, plain).device)
        found = type(module).forward(module, *_part(args, taken, tokens), **own)
        pieces.append(_part(found, slice(kept, None), length))
    return _joined(pieces, tokens - bounds[-1])


def _chunk_mask(length: int, chunk: int | None, device: torch.device) -> Tensor | None:
    """`[1, 1, length, length]`, true where a token attends to another; None for plain causal attention."""
    if chunk is None or length <= chunk:
        return None
    numbers = torch.arange(length, device=device) // chunk
    return (numbers[:, None] == numbers).tril()[None, None]


def chunked_attention_per_document(self: nn.Module, *args: object, **kwargs: Any) -> object:
    """`forward_per_document` for an attention with chunks: each document gets its own mask, counted from its start."""
    if kwargs.get("cu_seq_lens_q") is None:
        return type(self).forward(self, *args, **kwargs)
    return _called_each(self, args, kwargs, mask=True)


def chunk_size_of(module: Any) -> int | None:
    """Chunk size of an attention of transformers; None if it attends to all tokens before."""
    config = module.config
    chunked = config.layer_types[module.layer_idx] == CHUNKED
    return int(config.attention_chunk_size) if chunked else None


def call_per_document(modules: Sequence[nn.Module], forward: Forward = forward_per_document) -> None:
    """Call modules separately for each document."""
    for module in modules:
        install(module, forward)


def restore_forwards(modules: Sequence[nn.Module]) -> None:
    """Restore the forward of the modules' class, where a model cannot be flattened after all."""
    for module in modules:
        vars(module).pop("forward", None)


def find_stateful_modules(
    root: nn.Module, run: Callable[[], object], attentions: Sequence[nn.Module]
) -> list[nn.Module]:
    """Find modules that receive the documents' bounds and whose output for a token depends on the tokens before it.

    Args:
        run: runs `root` on a few tokens, with `record` among its arguments in place of the documents' bounds.

    Returns:
        The innermost of these modules. If one does not receive the bounds, the innermost module around it that does,
        but never `root`.
    """
    calls = record_calls(root, run)
    known = set(attentions)
    found: list[nn.Module] = []

    def look(module: nn.Module, around: Sequence[nn.Module]) -> bool:
        """Whether a module mixes tokens in a way that is known by now."""
        inside = [look(child, [*around, module]) for child in module.children()]
        if module in known or any(inside):
            return True
        if module not in calls or not _mixes(module, calls[module]):
            return False
        chain = [*around, module]
        place = next((one for one in reversed(chain) if one in calls and "record" in calls[one][1]), None)
        if place is not None and place is not root and place not in found:
            found.append(place)
        return True

    look(root, ())
    return found


def record_calls(root: nn.Module, run: Callable[[], object]) -> dict[nn.Module, Call]:
    """Positional and keyword arguments of the last call of `root` and each module in it that was called."""
    calls: dict[nn.Module, Call] = {}

    def listen(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        calls[module] = (args, kwargs)

    hooks = [module.register_forward_pre_hook(listen, with_kwargs=True) for module in root.modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _mixes(module: nn.Module, call: Call) -> bool:
    """Whether the output for the last tokens changes when the tokens before them change.

    Tested in float32: the effect of a state may be as small as rounding in half precision.
    """
    args, kwargs = call
    kwargs = {name: value for name, value in kwargs.items() if name not in BOUNDS}
    tokens = _tokens(args, kwargs)
    if tokens < 2 or is_linear(module):  # noqa: PLR2004
        return False
    half = tokens // 2

    def exchanged(value: object) -> object:
        if isinstance(value, Tensor) and value.ndim == 3 and value.shape[1] == tokens and value.is_floating_point():  # noqa: PLR2004
            return torch.cat((value[:, :half].flip(-1), value[:, half:]), 1)
        return value

    def moved(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> float:
        found = [
            _first(type(module).forward(module, *_each(change, args), **_each(change, kwargs)))
            for change in (lambda value: value, exchanged)
        ]
        if any(one is None or one.ndim != 3 or one.shape[1] != tokens for one in found):  # noqa: PLR2004
            return 0.0
        one, other = (each[:, half:].float() for each in found if each is not None)
        return float((one - other).norm() / one.norm().clamp(min=1e-30))

    if any(parameter.dtype in HALF for parameter in module.parameters()):
        try:
            wide = copy.deepcopy(module).float()
            return not moved(wide, _each(_wide, args), _each(_wide, kwargs)) <= ROUNDING
        except TEST_ERRORS:  # quantized weights cannot be converted
            return not moved(module, args, kwargs) <= ROUNDING_OF_HALF
    return not moved(module, args, kwargs) <= ROUNDING


def _each(change: Callable[[object], object], value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_each(change, one) for one in value)
    if isinstance(value, dict):
        return {name: _each(change, one) for name, one in value.items()}
    return change(value)


def _wide(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value


def _first(value: object) -> Tensor | None:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, Tensor) else None


def _tokens(args: tuple[object, ...], kwargs: Mapping[str, object]) -> int:
    found = _first_of(args, kwargs)
    return 0 if found is None else found.shape[1]


def _first_of(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Any:
    """First tensor `[1, tokens, hidden]` of a call."""
    given = (*args, *kwargs.values())
    return next((one for one in given if isinstance(one, Tensor) and one.ndim == 3 and one.shape[0] == 1), None)  # noqa: PLR2004


def _documents(bounds: Sequence[int], forks: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[slice, ...], int]]:
    """Slices to read for each document or branch, and the first token whose result is kept."""
    for number, (start, end) in enumerate(pairwise(bounds)):
        if not forks:
            yield (slice(start, end),), 0
            continue
        fork, split = forks[number]
        yield (slice(start, split),), 0
        yield (slice(start, fork), slice(split, end)), fork - start


def _part(value: Any, taken: Sequence[slice] | slice, tokens: int) -> Any:
    """Slice the tokens of all tensors `[1, tokens, ...]` in a value."""
    if isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == tokens:
        if isinstance(taken, slice):
            return value[:, taken]
        parts = [value[:, each] for each in taken]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    if isinstance(value, tuple):
        return tuple(_part(one, taken, tokens) for one in value)
    if isinstance(value, dict):
        return {name: _part(one, taken, tokens) for name, one in value.items()}
    return value


def _joined(pieces: Sequence[Any], filler: int) -> Any:
    first = pieces[0]
    if isinstance(first, tuple):
        return tuple(_joined(parts, filler) for parts in zip(*pieces, strict=True))
    if not isinstance(first, Tensor) or first.ndim < 2:  # noqa: PLR2004
        return first
    rest = [first.new_zeros(first.shape[0], filler, *first.shape[2:])] if filler else []
    return torch.cat([*pieces, *rest], 1)
