"""The cheapest changes of a config that make a run fit into memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerDeclaration
from llf_core.config.registry import declared, method_of, optimizer_of, quantizer_of
from llf_core.config.rule import ConfigError
from llf_core.runs.formatting import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llf_core.config import RunConfig

MOST_CHANGES = 5
LEAST_CUTOFF = 256
"""Tokens below which examples are not shortened."""
EIGHT_BIT = "adamw_8bit"
LARGE_RANK = 8
"""Rank to which larger ones are lowered: the default of `lora_rank`."""


@dataclass(frozen=True)
class Change:
    """A change of a config that saves memory; the run needs `memory` bytes with it."""

    label: str
    cost: str
    changes: dict[str, object]
    memory: int

    def json(self) -> dict[str, object]:
        """Plain values, for `llf estimate --json`."""
        return {"label": self.label, "cost": self.cost, "changes": self.changes, "memory": self.memory}

    def text(self) -> str:
        """One line for a terminal, with values as on the command line."""
        values = " ".join(f"{key}={_plain(value)}" for key, value in self.changes.items())
        return f"{self.label}: {values}  ({' '.join(size(self.memory))}; {self.cost})"


@dataclass(frozen=True)
class Candidate:
    """A kind of change; `values` generates values by key, the mildest first, none where it does not apply."""

    label: str
    cost: str
    values: Callable[[RunConfig], Iterator[dict[str, object]]]


def cheaper_changes(config: RunConfig, needed: Callable[[RunConfig], int | None], room: int) -> tuple[Change, ...]:
    """Find up to `MOST_CHANGES` changes, the cheapest first, each of which makes a run fit into `room` bytes.

    Each candidate is tried alone, in its mildest form that is enough. If none is, candidates are combined in their
    order to one change. A change that the rules of a config refuse is left out. Empty if nothing is enough.
    """
    tries = _Tries(config, needed)
    found = []
    for candidate in CANDIDATES:
        for values in candidate.values(config):
            change = tries.change(candidate, values)
            if change is not None and change.memory <= room:
                found.append(change)
                break
    return tuple(found[:MOST_CHANGES]) or _combined(tries, room)


def _combined(tries: _Tries, room: int) -> tuple[Change, ...]:
    """Combine candidates in their order while they save memory, until the run fits."""
    taken: dict[str, object] = {}
    labels: list[str] = []
    costs: list[str] = []
    current, least = tries.config, tries.needed(tries.config)
    for candidate in CANDIDATES:
        for values in candidate.values(current):
            change = tries.change(candidate, {**taken, **values})
            if change is None or least is None or change.memory >= least:
                continue
            if candidate.label not in labels:
                labels.append(candidate.label)
                costs.append(candidate.cost)
            taken, least = change.changes, change.memory
            current = tries.config.replace(**taken)
            if least <= room:
                label = ", ".join([labels[0], *(one[0].lower() + one[1:] for one in labels[1:])])
                return (Change(label, "; ".join(costs), taken, least),)
    return ()


class _Tries:
    """Changes of a config with their memory, each of which is forecast once."""

    def __init__(self, config: RunConfig, needed: Callable[[RunConfig], int | None]) -> None:
        self.config, self.needed = config, needed
        self._memory: dict[str, int | None] = {}

    def change(self, candidate: Candidate, values: dict[str, object]) -> Change | None:
        """The change with its memory; None if the rules refuse it, or the memory is unknown."""
        key = repr(sorted(values.items()))
        if key not in self._memory:
            try:
                self._memory[key] = self.needed(self.config.replace(**values))
            except (ConfigError, ValueError):
                self._memory[key] = None
        memory = self._memory[key]
        return None if memory is None else Change(candidate.label, candidate.cost, values, memory)


def _checkpointing(config: RunConfig) -> Iterator[dict[str, object]]:
    if config.model.disable_gradient_checkpointing or config.training.gradient_checkpointing is False:
        values: dict[str, object] = {"gradient_checkpointing": True}
        if config.model.disable_gradient_checkpointing:
            values["disable_gradient_checkpointing"] = False
        yield values


def _smaller_batch(config: RunConfig) -> Iterator[dict[str, object]]:
    """Halve the micro-batch, with as many examples in a step."""
    training = config.training
    batch, steps = training.per_device_train_batch_size, training.gradient_accumulation_steps
    while batch > 1 and batch % 2 == 0:
        batch, steps = batch // 2, steps * 2
        yield {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
    if batch > 1:
        yield {"per_device_train_batch_size": 1, "gradient_accumulation_steps": steps * batch}


def _eight_bit(config: RunConfig) -> Iterator[dict[str, object]]:
    optimizer = optimizer_of(config)
    eight_bit = declared(OptimizerDeclaration).get(EIGHT_BIT)
    if eight_bit is not None and not optimizer.switch and optimizer.state_bytes > eight_bit.state_bytes:
        yield {"optim": EIGHT_BIT}


def _quantized(config: RunConfig) -> Iterator[dict[str, object]]:
    if method_of(config).frozen_base:
        now, quantizer = config.model.quantization_bit, quantizer_of(config)
        for bits in (8, 4):
            if bits in quantizer.bits and (now is None or bits < now):
                yield {"quantization_bit": bits}


def _shorter(config: RunConfig) -> Iterator[dict[str, object]]:
    cutoff = config.data.cutoff_len
    for parts in (3, 2, 1):
        shorter = cutoff * parts // 4 // 64 * 64
        if LEAST_CUTOFF <= shorter < cutoff:
            yield {"cutoff_len": shorter}


def _pure(config: RunConfig) -> Iterator[dict[str, object]]:
    if not method_of(config).frozen_base and not config.get("pure_bf16"):
        yield {"pure_bf16": True, "bf16": False, "fp16": False}


def _layerwise(config: RunConfig) -> Iterator[dict[str, object]]:
    optimizer = optimizer_of(config)
    if method_of(config).frozen_base or optimizer.layerwise(config):
        return
    if optimizer.name == "galore":
        yield {"galore_layerwise": True, "gradient_accumulation_steps": 1, "max_grad_norm": 0}
    yield {"optim": "badam"}


def _lora(config: RunConfig) -> Iterator[dict[str, object]]:
    if not method_of(config).frozen_base:
        values = {"finetuning_type": "lora", "optim": "adamw_torch_fused", "pure_bf16": False}
        switch = optimizer_of(config).switch
        if switch:
            values[switch] = False
        yield values
        yield {**values, "quantization_bit": 4}


def _lower_rank(config: RunConfig) -> Iterator[dict[str, object]]:
    key = method_of(config).rank_key
    rank = int(config.get(key)) if key else 0
    while key and rank > LARGE_RANK:
        rank = max(LARGE_RANK, rank // 2)
        yield {key: rank}


CANDIDATES = (
    Candidate("Use gradient checkpointing", "a step takes about a third longer", _checkpointing),
    Candidate("Halve the micro-batch", "the same steps in smaller parts, slower on a GPU", _smaller_batch),
    Candidate("Keep the optimizer's state in 8 bits", "updates are slightly less exact", _eight_bit),
    Candidate("Quantize the frozen weights", "steps are slower and weights less exact", _quantized),
    Candidate("Lower the rank", "the adapter can learn less", _lower_rank),
    Candidate("Shorten examples", "longer examples are truncated", _shorter),
    Candidate("Train in bfloat16 alone", "updates are less exact", _pure),
    Candidate("Update one layer at a time", "another optimizer, which learns in blocks", _layerwise),
    Candidate("Train a LoRA adapter instead", "fewer parameters are trained", _lora),
)
"""The cheapest first: changes of time, then of exactness, then of what is learned."""


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
