"""Mixture-of-Depths: blocks that only some tokens pass, chosen by a router (arXiv 2404.02258).

A routed block keeps its class and the names of its weights. It gets a router, `mod_router`, and a forward that gathers
the chosen tokens, calls the block's own forward on them alone, and puts the results back.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from fractions import Fraction
from types import MethodType
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel


SETTINGS = "mixture_of_depths"
"""Key of a model's config that describes its routers: `{"capacity": 0.125, "layers": [1, 3]}`."""
ROUTER = "mod_router"

ROUTING = "mod_routing"
"""Attribute of a routed block with the `Routing` of its model."""

STORED = re.compile(rf"(?P<block>(?P<list>.+)\.(?P<layer>\d+))\.{ROUTER}\.(?P<part>weight|bias)")
"""Name of a router's tensor in a safetensors file."""


@dataclass(frozen=True)
class RoutingSettings:
    """A model's routers.

    Attributes:
        capacity: share of the tokens of each document that pass a routed block in training, in (0, 1].
        layers: indices of the routed blocks.
    """

    capacity: float
    layers: tuple[int, ...]

    def json(self) -> dict[str, object]:
        """Entry of the model's config, from which `read_settings` restores it."""
        return {"capacity": self.capacity, "layers": list(self.layers)}


def read_settings(config: object) -> RoutingSettings | None:
    """Routers that a model's config describes; None if it has none.

    Raises:
        ModelError: the entry is not one that LLF writes.
    """
    entry = getattr(config, SETTINGS, None)
    if entry is None or entry is False:
        return None
    capacity, layers = (entry.get("capacity"), entry.get("layers")) if isinstance(entry, dict) else (None, None)
    numbers = isinstance(layers, list) and all(type(one) is int and one >= 0 for one in layers)
    share = capacity if isinstance(capacity, int | float) and not isinstance(capacity, bool) else 0
    if not (0 < share <= 1 and numbers and layers):
        raise ModelError(
            f"{SETTINGS} in the config of the model is {str(entry)[:100]}. Expected an object with a capacity above 0 "
            "and at most 1, and a list of layers."
        )
    return RoutingSettings(float(share), tuple(layers))


@dataclass(frozen=True)
class RouterLoss:
    """Auxiliary loss of the routers in a forward pass, scalars.

    Attributes:
        total: float32 or float64 with a graph: binary cross-entropy, summed over tokens, averaged over routers.
        agreeing: float32: tokens that generation would send the same way, averaged over routers.
        tokens: int64: number of tokens.
    """

    total: Tensor
    agreeing: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Documents:
    """The documents of a batch, and how many tokens of each may pass a routed block.

    Attributes:
        numbers: `[batch, seq]`, int64: the document of each token; the number of documents for padding.
        capacity: `[documents + 1]`, int64: tokens of each document that pass; 0 for padding.
        real: `[batch, seq]`, bool: false for padding.
    """

    numbers: Tensor
    capacity: Tensor
    real: Tensor


@dataclass(eq=False)
class Routing:
    """State that the routed blocks of a model share.

    Attributes:
        batch: arguments `BATCH` of the decoder in the current forward pass; empty before the first.
        documents: of the current batch, found by the first router.
        losses: `(loss, agreeing)` of each router in the current forward pass, scalars; only in training.
    """

    settings: RoutingSettings
    batch: Mapping[str, Any] = field(default_factory=dict)
    documents: Documents | None = None
    losses: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def begin(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the decoder, whose blocks do not get the arguments that separate documents."""
        if args:
            kwargs = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        self.batch = {key: kwargs.get(key) for key in BATCH}
        self.documents, self.losses = None, []

    def choose(self, weights: Tensor, *, training: bool) -> Tensor:
        """Choose the tokens that pass a block from `weights` `[batch, seq]`: `[batch, seq]`, bool.

        In training these are the tokens of each document with the highest weights, and the router's auxiliary loss is
        added. Otherwise a token passes if its weight is above 0 (sigmoid above ½), which no later token changes: arXiv
        2404.02258, section 3.5, the first method.
        """
        import torch.nn.functional as F  # noqa: N812 - torch's own short name

        if not training:
            return (weights > 0) & real_tokens(weights.shape, self.batch, weights.device)
        if self.documents is None:
            self.documents = documents_of(weights.shape, self.batch, self.settings.capacity, weights.device)
        chosen, real = highest_of_each(weights, self.documents), self.documents.real
        costs = F.binary_cross_entropy_with_logits(weights, chosen.to(weights.dtype), reduction="none")
        agreeing = ((weights > 0) == chosen) & real
        self.losses.append(((costs * real).sum(), agreeing.sum()))
        return chosen

    def take_loss(self) -> RouterLoss | None:
        """Auxiliary loss of the last forward pass in training, to be taken before its backward pass; None without one.

        The router's outputs are logits, its own choice is the target (arXiv 2404.02258, section 3.5).
        """
        import torch

        losses, self.losses = self.losses, []
        if not losses or self.documents is None:
            return None
        totals, agreeing = zip(*losses, strict=True)
        count = self.documents.real.sum()
        return RouterLoss(torch.stack(totals).mean(), torch.stack(agreeing).float().mean(), count)


def routing_of(model: nn.Module) -> Routing | None:
    """The routing of a model with routed blocks, wrapped or not; None of any other model."""
    return next((vars(module)[ROUTING] for module in model.modules() if ROUTING in vars(module)), None)


def routers_of(model: nn.Module) -> list[nn.Module]:
    """The routers of a model, in the order of its layers."""
    return [module.get_submodule(ROUTER) for module in model.modules() if ROUTING in vars(module)]


def attach_routers(model: PreTrainedModel, blocks: str, settings: RoutingSettings) -> None:
    """Give blocks of a decoder-only model a router each, in place. The config then has them, and turns off the cache.

    A new router gives each token the weight 1: outside of training the model computes what it did before, and training
    begins with the first tokens of each document.

    Args:
        blocks: name of the list of its blocks, such as `model.layers`.

    Raises:
        ModelError: the model has no such layers.
    """
    from torch import nn

    found = model.get_submodule(blocks)
    size = model.config.get_text_config().hidden_size
    if not isinstance(found, nn.ModuleList) or max(settings.layers) >= len(found):
        count = len(found) if isinstance(found, nn.ModuleList) else 0
        raise ModelError(
            f"{SETTINGS} in the config of the model names layer {max(settings.layers)}, counted from 0, and "
            f"{type(model).__name__} has {count} layers in {blocks}. Copy the model again."
        )
    routing = Routing(settings)
    for layer in settings.layers:
        block = found[layer]
        router = nn.Linear(size, 1, device="meta", dtype=model.dtype).to_empty(device=model.device)  # draws nothing
        nn.init.zeros_(router.weight)
        nn.init.ones_(router.bias)
        block.add_module(ROUTER, router)
        setattr(block, ROUTING, routing)
        block.forward = MethodType(routed_forward, block)
    decoder = model.get_submodule(blocks.rpartition(".")[0])
    decoder.register_forward_pre_hook(routing.begin, with_kwargs=True)
    setattr(model.config, SETTINGS, settings.json())
    model.config.use_cache = False
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.use_cache = False


def restore_routers(model: PreTrainedModel, folder: Path | str) -> bool:
    """Give a loaded model the routers that its folder has, in place: plain transformers leaves them out.

    Raises:
        ModelError: the config names routers whose weights are missing, damaged or do not fit.
    """
    import torch

    settings = read_settings(model.config)
    if settings is None:
        return False
    stored = _stored_routers(folder)
    lists = {STORED.fullmatch(name)["list"] for name in stored}  # type: ignore[index]  # only such names
    names = {
        f"{one}.{layer}.{ROUTER}.{part}" for one in lists for layer in settings.layers for part in ("weight", "bias")
    }
    missing = sorted(names - set(stored)) or ([] if lists else [f"the {ROUTER} of layer {settings.layers[0]}"])
    if missing or len(lists) > 1:
        raise ModelError(
            f"The config in {folder} names routers of Mixture-of-Depths in {len(settings.layers)} layers, and its "
            f"safetensors lack {missing[0] if missing else 'a single list of them'}. Copy the model again."
        )
    try:
        attach_routers(model, lists.pop(), settings)
    except AttributeError as error:
        raise ModelError(f"The routers in {folder} belong to no layer of a {type(model).__name__}: {error}.") from error
    for name in sorted(names):
        parameter, value = model.get_parameter(name), stored[name]
        if parameter.shape != value.shape:
            raise ModelError(
                f"{name} in {folder} has the shape {list(value.shape)}. Expected {list(parameter.shape)}. Copy the "
                "model again."
            )
        with torch.no_grad():
            parameter.copy_(value)
    return True


def _stored_routers(folder: Path | str) -> dict[str, Tensor]:
    from pathlib import Path

    from safetensors import SafetensorError, safe_open

    found: dict[str, Tensor] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if STORED.fullmatch(name)]  # noqa: SIM118 - no mapping
                found |= {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise ModelError(f"{path} cannot be read: {first_line(error)} Copy the model again.") from error
    return found


def router_weights(router: nn.Linear, hidden: Tensor) -> Tensor:
    """Router weights `[batch, seq]` of hidden states `[batch, seq, hidden]`, in float32 or wider.

    Rounding would change the order of close ones. A linear projection: arXiv 2404.02258, section 3.4.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own short name

    wide = torch.promote_types(hidden.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear(hidden.to(wide), router.weight.to(wide), router.bias.to(wide))[..., 0]


def routed_forward(self: Any, *args: Any, **kwargs: Any) -> object:
    """Forward of a routed block: the chosen tokens pass the block, the others skip it (arXiv 2404.02258, eq. 1).

    The first argument or `hidden_states` is `[batch, seq, hidden]`.
    """
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    _refuse_cache(args, kwargs)
    weights = router_weights(self.mod_router, hidden)
    routing: Routing = getattr(self, ROUTING)
    return pass_chosen(self, args, kwargs, weights, routing.choose(weights, training=self.training))


def _refuse_cache(args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
    from transformers.cache_utils import Cache

    if any(isinstance(value, Cache) for value in (*args, *kwargs.values())):
        raise ValueError(
            "A model with routed blocks (Mixture-of-Depths) keeps no cache of keys and values, since each block has "
            "those of other tokens. Set use_cache=False."
        )


BATCH = ("cu_seq_lens_q", "attention_mask", "position_ids")
"""Arguments of a decoder that mark documents and padding."""

DENOMINATOR = 1_000_000
"""Bound of the fraction that a capacity is read as, so that 0.29 of 100 tokens are 29."""

FLAT_MASK = 4
"""Axes of a mask `[batch, heads, seq, seq]`."""


def real_tokens(shape: Sequence[int], batch: Mapping[str, Any], device: torch.device) -> Tensor:
    """Which tokens are no padding: `[batch, seq]`, bool; `[1, seq]` with `cu_seq_lens_q`.

    Args:
        batch: keyword arguments of the decoder: `cu_seq_lens_q` `[documents + 1]` or `attention_mask` `[batch, seq]`,
            if there is one.
    """
    import torch

    bounds, mask = batch.get("cu_seq_lens_q"), batch.get("attention_mask")
    if bounds is not None:
        inside: Tensor = torch.arange(shape[1], device=device) < bounds[-1].to(device)
        return inside[None]
    if mask is not None and mask.ndim == 2:  # noqa: PLR2004 - batch and seq
        real: Tensor = mask.to(device=device, dtype=torch.bool)
        return real
    return torch.ones(*shape, dtype=torch.bool, device=device)


def documents_of(shape: Sequence[int], batch: Mapping[str, Any], capacity: float, device: torch.device) -> Documents:
    """Find the documents of a batch from the arguments of its decoder.

    Documents of a flattened batch are those of `cu_seq_lens_q`. Otherwise each row is one, without the tokens that
    `attention_mask` excludes; without a mask, a row is divided where `position_ids` do not go on by 1, as transformers
    does.

    Args:
        shape: batch and seq, both at least 1.
        batch: keyword arguments: `cu_seq_lens_q` `[documents + 1]`, `attention_mask` and `position_ids` `[batch, seq]`,
            as far as there are any.
        capacity: share of the tokens of each document that pass; rounded down, at least one.

    Raises:
        ValueError: there is no `cu_seq_lens_q`, and `attention_mask` is not two-dimensional.
    """
    import torch

    rows, seq = shape
    bounds, mask, positions = (batch.get(key) for key in BATCH)
    real = real_tokens(shape, batch, device)
    if bounds is not None:
        ends = bounds[1:].to(device=device, dtype=torch.int64)
        numbers = torch.bucketize(torch.arange(seq, device=device), ends, right=True)[None]
        count = len(ends)
    elif mask is not None:
        if mask.ndim != 2:  # noqa: PLR2004 - batch and seq
            raise ValueError(
                "Mixture-of-Depths counts the tokens of each document, which an attention_mask of shape "
                f"{list(mask.shape)} does not tell. Expected a mask of shape [batch, seq]."
            )
        count, numbers = rows, torch.arange(rows, device=device)[:, None].expand(rows, seq)
    else:
        starts = torch.zeros(rows, seq, dtype=torch.int64, device=device)
        starts[:, 0] = 1
        if positions is not None and positions.ndim == 2:  # noqa: PLR2004 - batch and seq
            starts[:, 1:] = (positions.diff(dim=1) != 1).to(device=device, dtype=torch.int64)
        numbers = starts.flatten().cumsum(0).view(rows, seq) - 1
        count = int(numbers[-1, -1]) + 1
    numbers = numbers.masked_fill(~real, count)
    lengths = torch.bincount(numbers.flatten(), minlength=count + 1)
    share = Fraction(capacity).limit_denominator(DENOMINATOR)
    passing = (lengths * share.numerator // share.denominator).clamp(min=1)
    passing[count] = 0
    return Documents(numbers, passing, real)


def highest_of_each(weights: Tensor, documents: Documents) -> Tensor:
    """Choose the tokens of each document with the highest `weights` `[batch, seq]`, up to its capacity.

    Of equal weights the first is chosen. Returns `[batch, seq]`, bool (expert-choice routing: arXiv 2404.02258, section
    3.3).
    """
    import torch

    numbers = documents.numbers.flatten()
    order = torch.argsort(weights.detach().flatten(), descending=True, stable=True)
    order = order[torch.argsort(numbers[order], stable=True)]
    sorted_numbers = numbers[order]
    lengths = torch.bincount(numbers, minlength=len(documents.capacity))
    ranks = torch.arange(len(order), device=order.device) - (lengths.cumsum(0) - lengths)[sorted_numbers]
    chosen = torch.empty_like(order, dtype=torch.bool)
    chosen[order] = ranks < documents.capacity[sorted_numbers]
    return chosen.view_as(weights)


def pass_chosen(
    block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], weights: Tensor, chosen: Tensor
) -> object:
    """Pass the chosen tokens through a block as if there were no others, and leave the others as they are.

    `x + r f(x)` for a chosen token with router weight `r`, `x` for any other, where `f(x)` is what the block adds to
    `x` (arXiv 2404.02258, equation 1).

    Args:
        args: arguments of its forward, see `routed_forward`.
        weights: router weights, `[batch, seq]`.
        chosen: `[batch, seq]`, bool.

    Returns:
        The block's own output, with hidden states of all tokens.
    """
    import torch

    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    rows, columns = chosen.nonzero(as_tuple=True)
    if not len(rows):  # one token passes for the type of the result, which is then dropped
        rows = columns = chosen.new_zeros(1, dtype=torch.int64)
    tokens = Gathered.of(rows, columns, hidden)
    given = {name: tokens.gather(value) for name, value in kwargs.items()}
    if kwargs.get("cu_seq_lens_q") is not None:
        given |= tokens.bounds(kwargs["cu_seq_lens_q"])
    output: Any = type(block).forward(block, *(tokens.gather(value) for value in args), **given)
    passed: Tensor = output[0] if isinstance(output, tuple) else output
    old = hidden[rows, columns]
    wide = torch.promote_types(old.dtype, weights.dtype)
    # A weight of exactly 1 gives the output of the block, bit by bit.
    new = torch.lerp(old.to(wide), passed[rows, tokens.slots].to(wide), weights[rows, columns, None].to(wide))
    new = torch.where(chosen[rows, columns, None], new.to(hidden.dtype), old)
    result = hidden.index_put((rows, columns), new)
    return (result, *output[1:]) if isinstance(output, tuple) else result


@dataclass(frozen=True)
class Gathered:
    """The chosen tokens of a batch, side by side in shorter rows, in their order.

    Attributes:
        columns: `[batch, longest]`, int64: the place of each in its row; 0 in slots without a token.
        filled: `[batch, longest]`, bool: whether a slot has a token; the others stand behind.
        slots: `[chosen]`, int64: the slot of each chosen token, in the order of rows and columns.
    """

    columns: Tensor
    filled: Tensor
    slots: Tensor
    tokens: int

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, hidden: Tensor) -> Gathered:
        """Place chosen tokens of `hidden` `[batch, seq, hidden]` side by side.

        Args:
            rows: `[chosen]`, int64, ascending; at least one token.
            columns: `[chosen]`, int64, ascending in each row.
        """
        import torch

        counts = torch.bincount(rows, minlength=hidden.shape[0])
        slots = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        longest = len(rows) if hidden.shape[0] == 1 else int(counts.max())
        places = rows.new_zeros(hidden.shape[0], longest)
        places[rows, slots] = columns
        filled = torch.arange(longest, device=rows.device) < counts[:, None]
        return cls(places, filled, slots, hidden.shape[1])

    def gather(self, value: object) -> Any:
        """Gather the chosen tokens of an argument of a block.

        Tensors `[batch or 1, seq, …]` become `[batch, longest, …]`, masks `[batch or 1, heads, seq, seq]` become
        `[batch, heads, longest, longest]`, also in tuples. Anything else is returned as it is.
        """
        import torch

        if isinstance(value, tuple):
            return tuple(self.gather(one) for one in value)
        if not isinstance(value, torch.Tensor) or value.ndim < 2 or value.shape[0] not in {1, len(self.columns)}:  # noqa: PLR2004
            return value
        if value.ndim == FLAT_MASK and value.shape[-2:] == (self.tokens, self.tokens):
            mask = self._mask(value)
            vars(mask).update(vars(value))  # the mark of `attention_backend.marked_mask`
            return mask
        return self._tokens(value) if value.shape[1] == self.tokens else value

    def _tokens(self, value: Tensor) -> Tensor:
        """`[batch, longest, …]` of a tensor `[batch or 1, seq, …]`."""
        import torch

        if len(self.columns) == 1:
            return value.index_select(1, self.columns[0])
        rows = torch.arange(len(self.columns), device=value.device)[:, None]
        return value.expand(len(self.columns), *value.shape[1:])[rows, self.columns]

    def _mask(self, mask: Tensor) -> Tensor:
        """`[batch, heads, longest, longest]`: a slot without a token is seen by itself alone."""
        import torch

        if len(self.columns) == 1:
            return mask.index_select(2, self.columns[0]).index_select(3, self.columns[0])
        batch, longest = self.columns.shape
        mask = mask.expand(batch, *mask.shape[1:])
        places = self.columns[:, None]
        mask = mask.gather(2, places[..., None].expand(batch, mask.shape[1], longest, self.tokens))
        mask = mask.gather(3, places[:, :, None].expand(batch, mask.shape[1], longest, longest))
        empty = ~self.filled[:, None]
        own = torch.eye(longest, dtype=torch.bool, device=mask.device) & empty[..., None]
        hidden, seen = (False, True) if mask.dtype == torch.bool else (torch.finfo(mask.dtype).min, 0)
        return mask.masked_fill(empty[:, :, None], hidden).masked_fill(own, seen)

    def bounds(self, cu_seq_lens: Tensor) -> dict[str, Any]:
        """Bounds of the documents with chosen tokens in a flattened batch of one row, which keep attention within them.

        Args:
            cu_seq_lens: `[documents + 1]`, int32.

        Returns:
            `cu_seq_lens_q` and `cu_seq_lens_k`, `[documents with a token + 1]`, int32; `max_length_q` and
            `max_length_k`, 0 without a token.
        """
        import torch

        ends = cu_seq_lens[1:].to(torch.int64)
        documents = torch.bucketize(self.columns[0], ends, right=True)
        counts = torch.bincount(documents, minlength=len(ends))[: len(ends)]
        counts = counts[counts > 0]
        bounds = torch.cat((counts.new_zeros(1), counts.cumsum(0))).to(torch.int32)
        longest = int(counts.max()) if len(counts) else 0
        return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
