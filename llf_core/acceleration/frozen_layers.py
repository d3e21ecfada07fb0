"""Caches the output of frozen lower layers in the first epoch, so that later epochs start above them.

The lowest layers of a decoder compute the same hidden states of a document in every epoch, if nothing in them is
trained or random. The cache takes disk space (`tokens * hidden * bytes`) and saves the forward pass of these layers;
they have no backward pass anyway.

Source: AutoFreeze, arXiv 2102.01386, section 3.3.
"""

from __future__ import annotations

from itertools import pairwise
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llf_core.acceleration.frozen_layer_store import key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PreTrainedModel

    from llf_core.acceleration.frozen_layer_store import TrunkStore

    Place = tuple[int, slice]


def frozen_depth(decoder: PreTrainedModel) -> int:
    """Number of lowest layers of a decoder that compute the same in every epoch.

    Args:
        decoder: has `layers` and an embedding.

    Returns:
        The number; 0 if the embedding is trained, or the embedding or the lowest layer is random.
    """
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        return 0
    inside = {id(module) for module in layers.modules()}
    outside = [module for module in decoder.modules() if module is not decoder and id(module) not in inside]
    norm = getattr(decoder, "norm", None)  # after the last layer
    before = [module for module in outside if norm is None or module not in set(norm.modules())]
    random = any(getattr(decoder.config, name, None) for name in ("attention_dropout", "layerdrop"))
    if random or any(map(_varies, before)):
        return 0
    depth = 0
    for layer in layers:
        if any(map(_varies, layer.modules())):
            break
        depth += 1
    return depth


def _varies(module: nn.Module) -> bool:
    trained = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    return trained or (isinstance(module, nn.Dropout) and module.p > 0)


class Trunk:
    """Skips the lowest layers of a decoder for documents whose hidden states are cached.

    Attributes:
        depth: number of layers that are skipped.
        kept: number of documents that this process has stored.
        skipped: number of tokens for which the layers were skipped.
    """

    def __init__(self, decoder: PreTrainedModel, depth: int, store: TrunkStore) -> None:
        """Replace the forward of the lowest layers. `remove` restores it.

        Args:
            decoder: has `layers`; is called with `input_ids` and either `cu_seq_lens_q` or an `attention_mask` `[batch,
                seq]` that is padded on the right.
            depth: from `frozen_depth`, at least 1.
            store: store for the decoder's hidden size and dtype.
        """
        self.depth, self.kept, self.skipped = depth, 0, 0
        self._store = store
        self._keys: list[tuple[bytes, Place]] = []
        self._states: Tensor | None = None
        self._layers = list(decoder.layers[:depth])
        self._own: list[Callable[..., Tensor] | None] = [vars(layer).get("forward") for layer in self._layers]
        self._hook = decoder.register_forward_pre_hook(self._enter, with_kwargs=True)
        for place, layer in enumerate(self._layers):
            layer.forward = MethodType(self._layer_forward(layer.forward, last=place == depth - 1), layer)

    def remove(self) -> None:
        """Restore the forward of the layers."""
        self._hook.remove()
        for layer, own in zip(self._layers, self._own, strict=True):
            if own is None:
                del layer.forward
            else:
                layer.forward = own

    def _enter(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Look up the documents of a batch before the decoder's forward."""
        self._keys, self._states = [], None
        ids = kwargs.get("input_ids", args[0] if args else None)
        if not decoder.training or ids is None:
            return
        host = ids.cpu()
        places = documents(host, kwargs)
        self._keys = [(key_of(host[place]), place) for place in places]
        if self._keys and all(key in self._store for key, _ in self._keys):
            first = self._store.get(self._keys[0][0])
            states = torch.zeros(*ids.shape, first.shape[-1], dtype=first.dtype)
            for key, place in self._keys:
                states[place] = self._store.get(key)
            self._states = states.to(ids.device)
            self.skipped += sum(place[1].stop - place[1].start for place in places)

    def _layer_forward(self, own: Callable[..., Tensor], *, last: bool) -> Callable[..., Tensor]:
        def forward(_: nn.Module, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
            if self._states is not None:
                return self._states if last else hidden_states
            output = own(hidden_states, *args, **kwargs)
            if last:
                self._keep(output)
            return output

        return forward

    def _keep(self, states: Tensor) -> None:
        for key, place in self._keys:
            if key not in self._store and self._store.put(key, states[place]):
                self.kept += 1
        self._keys = []


def documents(ids: Tensor, batch: dict[str, Any]) -> list[Place]:
    """Find the documents of a batch.

    Args:
        ids: token ids `[batch, seq]`.
        batch: keyword arguments of the decoder.

    Returns:
        Position of each document; empty if the batch is neither flattened nor padded.
    """
    if (bounds := batch.get("cu_seq_lens_q")) is not None:
        return [(0, slice(start, end)) for start, end in pairwise(bounds.tolist())]
    mask = batch.get("attention_mask")
    if mask is None or mask.shape != ids.shape or bool((mask[:, 1:] > mask[:, :-1]).any()):
        return []
    return [(row, slice(0, length)) for row, length in enumerate(mask.sum(-1).tolist())]
