"""Mixture-of-Depths: blocks that only some tokens pass, chosen by a router (arXiv 2404.02258).

A routed block keeps its class and the names of its weights. It gets a router, `mod_router`, and a forward that gathers
the chosen tokens, calls the block's own forward on them alone, and puts the results back.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError, first_line
from llf_core.models.token_routing import BATCH, Documents, documents_of, highest_of_each, pass_chosen, real_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
