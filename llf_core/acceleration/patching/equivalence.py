"""Runs a model on two short documents, before and after it is changed, and compares the results."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from llf_core.acceleration.patching import attention_backend
from llf_core.acceleration.patching.causal_head import (
    decoder_of,
    empty_mask,
    flatten_probe,
    has_chunked_layers,
    has_recurrent_layers,
    unsupported_reason,
)
from llf_core.acceleration.patching.matching import (
    QKV,
    TEST_ERRORS,
    depends_on_layer_number,
    formula_key,
    layer_number_attributes,
)
from llf_core.acceleration.patching.per_document import (
    call_per_document,
    chunk_size_of,
    chunked_attention_per_document,
    find_stateful_modules,
    record_calls,
    restore_forwards,
)
from llf_core.config.number_format import percent

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from transformers import PreTrainedModel

    from llf_core.acceleration.patching.attention_backend import AttentionCall
    from llf_core.acceleration.patching.causal_head import Flattened

LENGTHS = (3, 6)
# Relative distance (of norms) of hidden states that counts as rounding. A wrong formula differs by far more. Chosen,
# not measured: 6 (bfloat16) to some 1000 machine epsilons of the dtype.
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# The same after the neighbouring document was exchanged: only the order of sums over experts may change.
STILL = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


class EquivalenceCheck:
    """Compares a decoder with its original state. Runs only as many of the first layers as include every kind of layer.

    Attributes:
        calls: for each kind of attention, the keyword arguments that its model passes; filled by `flattens`.
        separate_modules: modules that are called separately for each document; filled by `flattens`.
    """

    def __init__(self, causal: PreTrainedModel, device: str | None = None) -> None:
        """Record the hidden states of a causal language model in evaluation mode.

        Args:
            device: to which the parts that are run are moved, and stay; None for where the model is.
        """
        self.decoder = decoder_of(causal)
        self.calls: dict[Hashable, dict[str, object]] = {}
        self.separate_modules: list[nn.Module] = []
        self._causal, self._name = causal, type(causal).__name__
        embeddings = causal.get_input_embeddings()
        self._moves, size = device is not None, len(embeddings.weight)
        self._device = torch.device(device or embeddings.weight.device)
        generator = torch.Generator().manual_seed(0)
        self._first, self._second, self._third = (
            torch.randint(0, size, (length,), generator=generator).to(self._device) for length in (*LENGTHS, LENGTHS[0])
        )
        self._numbered: frozenset[type] = frozenset()
        self._layers = self._first_of_each_kind()
        try:
            self._own = self._begun()
        except TEST_ERRORS:
            if self._layers is None:
                raise
            self._layers = None
            self._own = self._begun()

    def formula_key(self, module: nn.Module) -> Hashable:
        """Key that is equal for modules with the same formula; see `probe_module.formula_key`."""
        return formula_key(module, self._numbered)

    def flattens(self) -> str | None:
        """Set the model's attention to `llf` and test whether it separates documents.

        An attention other than `sdpa` and `eager`, such as FlashAttention, stays and is tested as it is. Recurrent and
        chunked modules are called separately for each document from then on, see `separate_modules`.

        The hidden states of a document must be the same, up to rounding (`CLOSE`, `STILL`: chosen limits), alone, after
        another document, and after a third.

        Returns:
            None if batches may be flattened, else the reason; the model's attention is then restored.
        """
        before = self._causal.config._attn_implementation
        reason = unsupported_reason(self._causal)
        if reason is not None:
            return reason
        try:
            reason = self._switch_attention(before)
        except TEST_ERRORS as error:
            reason = f"{self._name} cannot process several documents ({str(error).partition(chr(10))[0]})."
        if reason is not None:
            self._causal.set_attn_implementation(before)
            restore_forwards(self.separate_modules)
            self.separate_modules = []
            if has_recurrent_layers(self._causal):
                return f"{self._name} has recurrent layers, whose state would carry over into the next document."
        return reason

    def difference(self, *, flatten: bool) -> str | None:
        """Compare the model's hidden states with the original ones, after parts were replaced.

        Returns:
            The difference as a clause that ends a sentence; None if it is rounding (`CLOSE`).
        """
        now = self._beside(self._first) if flatten else self._alone()
        distance = _distance(now, self._own)
        if distance <= CLOSE.get(self._own.dtype, 0.0):
            return None
        if math.isinf(distance):
            return "its hidden states are not all finite."
        return f"its hidden states would differ by {percent(distance, 1)}."

    def forks(self) -> bool:
        """Whether a branch of a flattened document has the same hidden states as without the other branch."""
        try:
            alone = self._run(None, **self._with_mask(flatten_probe([torch.cat((self._first, self._second))])))
            beside, still = (self._branch(other) for other in (self._first, self._third))
        except TEST_ERRORS:
            return False
        start = len(self._first)
        limit = CLOSE.get(alone.dtype, 0.0)
        changed = _distance(still, beside) > STILL.get(alone.dtype, 0.0)
        return not changed and _distance(beside, alone[start:]) <= limit

    def _begun(self) -> Tensor:
        """The model's own hidden states; also finds which classes compute by the number of their layer."""
        own: list[Tensor] = []
        calls = record_calls(self.decoder, lambda: own.append(self._alone()))
        told = [one for one in self.decoder.modules() if one is not self.decoder and layer_number_attributes(one)]
        free = {type(one) for one in told if one in calls} - {
            type(one) for one in told if one in calls and depends_on_layer_number(one, *calls[one])
        }
        self._numbered = frozenset(type(one) for one in told) - free
        if not self._numbered or self._layers is None:
            return own[0]
        self._layers = self._first_of_each_kind()
        return self._alone()

    def _branch(self, other: Tensor) -> Tensor:
        """Last hidden states of the second document as a branch after the first one, next to another branch."""
        shared, length = len(self._first), len(self._second)
        batch = flatten_probe([torch.cat((self._first, other, self._second))])
        split = shared + len(other)
        batch["position_ids"][0, split:] -= len(other)
        batch["forks"] = torch.tensor([[shared, split]], dtype=torch.int32, device=self._device)
        return self._run(None, **self._with_mask(batch))[-length:]

    def _switch_attention(self, before: str) -> str | None:
        asked: list[AttentionCall] = []
        told: list[AttentionCall] = []
        ours = before in ("sdpa", "eager")
        if ours:
            attention_backend.register()
            self._causal.set_attn_implementation(attention_backend.PROBE)
            with self._recording_calls():
                self._alone(asked)
            self._loop([one.layer for one in asked])
            if reason := _unsupported_call(self._name, asked, self._chunks([one.layer for one in asked])):
                return reason
            self._causal.set_attn_implementation(attention_backend.NAME)
        second = self._beside(self._first, told if ours else None)
        if not has_chunked_layers(self._causal) and (len(told) != len(asked) or not all(one.flattened for one in told)):
            return f"the layers of {self._name} do not pass the lengths of documents to their attention."
        if reason := self.difference(flatten=True):
            return f"{self._name} computes documents side by side differently from separate ones: {reason}"
        if _distance(self._beside(self._third), second) > STILL.get(second.dtype, 0.0):
            return f"in {self._name} a document changes the numbers of the next one."
        return None

    def _loop(self, attentions: list[nn.Module]) -> None:
        """Call modules with a recurrent state separately for each document."""
        if not has_recurrent_layers(self._causal):
            return
        keys = {
            self.formula_key(one) for one in find_stateful_modules(self.decoder, lambda: self._alone([]), attentions)
        }
        self.separate_modules = [one for one in self.decoder.modules() if keys and self.formula_key(one) in keys]
        call_per_document(self.separate_modules)

    def _chunks(self, attentions: list[nn.Module]) -> dict[nn.Module, int | None]:
        """Call attentions with chunks separately for each document; returns their chunk sizes."""
        if not has_chunked_layers(self._causal):
            return {}
        keys = {self.formula_key(one) for one in attentions}
        found = [one for one in self.decoder.modules() if self.formula_key(one) in keys]
        call_per_document(found, chunked_attention_per_document)
        self.separate_modules += found
        return {one: chunk_size_of(one) for one in attentions}

    def _alone(self, record: list[AttentionCall] | None = None) -> Tensor:
        """Last hidden states `[seq, hidden]` of the second document alone."""
        return self._run(record, input_ids=self._second[None])

    def _beside(self, other: Tensor, record: list[AttentionCall] | None = None) -> Tensor:
        """Last hidden states `[seq, hidden]` of the second document after another one."""
        batch = self._with_mask(flatten_probe([other, self._second]))
        return self._run(record, **batch)[len(other) :]

    def _with_mask(self, batch: Flattened) -> Flattened:
        if self._causal.config._attn_implementation == attention_backend.NAME:
            batch["attention_mask"] = empty_mask(self._device)
        return batch

    def _run(self, record: list[AttentionCall] | None, **batch: Tensor | int) -> Tensor:
        told = {} if record is None else {"record": record}
        with self._few_layers():
            hidden: Tensor = self.decoder(**batch, use_cache=False, **told).last_hidden_state
        return hidden[0]

    def _first_of_each_kind(self) -> tuple[str, int] | None:
        """Name of the list of layers, and how many of the first include each kind."""
        count = getattr(self._causal.config.get_text_config(), "num_hidden_layers", None)
        for name, child in self.decoder.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                kinds = [self.formula_key(layer) for layer in child]
                return name, max(kinds.index(one) for one in set(kinds)) + 1
        return None

    @contextmanager
    def _few_layers(self) -> Iterator[None]:
        if self._layers is None:
            self._move()
            yield
            return
        name, count = self._layers
        layers = self.decoder._modules[name]
        self.decoder._modules[name] = nn.ModuleList(layers[:count])
        try:
            self._move()
            yield
        finally:
            self.decoder._modules[name] = layers

    def _move(self) -> None:
        if self._moves:
            self.decoder.to(self._device)

    @contextmanager
    def _recording_calls(self) -> Iterator[None]:
        def listen(module: nn.Module, _: object, kwargs: dict[str, object]) -> None:
            self.calls.setdefault(self.formula_key(module), kwargs)

        hooks = [
            module.register_forward_pre_hook(listen, with_kwargs=True)
            for module in self.decoder.modules()
            if any(names[0] in module._modules for names in QKV)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _unsupported_call(name: str, asked: list[AttentionCall], chunks: Mapping[nn.Module, int | None]) -> str | None:
    """Arguments of attention that flattened batches do not support; None if there are none."""
    if not asked:
        return f"{name} has its own attention, in which documents would see each other."
    for one in asked:
        if one.unusual:
            return f"the attention of {name} uses {one.unusual[0]}, which flattened batches do not support."
        if one.masked != chunks.get(one.layer, one.window):
            return f"layers of {name} mask tokens by a rule ({one.masked}) that is not passed to their attention."
    return None


def _distance(one: Tensor, other: Tensor) -> float:
    """Relative difference of the norms; infinite if a value is not finite."""
    apart = float((one - other).float().norm())
    if apart == 0.0:  # also of states that are all 0
        return 0.0
    distance = apart / max(float(other.float().norm()), torch.finfo(torch.float32).tiny)
    return float("inf") if math.isnan(distance) else distance
