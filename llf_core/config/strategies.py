from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A way in which several processes share a run.

    Attributes:
        name: value of `strategy`.
        summary: one sentence: what it saves and what it costs.
        on_cpu: one more sentence for processes without a GPU; may be empty.
        shards: whether each process keeps only its share of weights, gradients and optimizer state.
        keeps_gathered: whether a layer that was gathered stays whole until its backward pass.
        copies_machines: whether the processes of each machine keep all shares among them, as those of every other do.
    """

    name: str
    label: str
    summary: str
    on_cpu: str = ""
    shards: bool = False
    keeps_gathered: bool = False
    copies_machines: bool = False

    @property
    def line(self) -> str:
        """Label and summary."""
        return f"{self.label}: {self.summary}"


SHARDED_QUANTIZER = ("bnb", 4)
"""Quantizer and bits of the packed weights that FSDP2 shards."""
STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        one.name: one
        for one in (
            Strategy(
                name="ddp",
                label="DDP",
                summary="Saves time: each process computes its share of a batch. Costs the memory of a whole run for "
                "each process, and a sum of the trained gradients in each step.",
                on_cpu="Processes on one CPU share its cores, so a step takes about as long as in one process.",
            ),
            Strategy(
                name="fsdp2",
                label="FSDP2",
                summary="Saves memory: each process keeps its share of weights, gradients and optimizer state. Costs "
                "communication: each layer is gathered whenever it computes.",
                on_cpu="Processes on one CPU share its memory, so together they need at least the memory of one.",
                shards=True,
            ),
            Strategy(
                name="zero2",
                label="ZeRO-2",
                summary="Saves memory between two steps, as FSDP2 does. Costs the memory of all weights in a step, and "
                "less communication than FSDP2: a gathered layer stays whole until its backward pass.",
                on_cpu="Processes on one CPU share its memory, so together they need at least the memory of one.",
                shards=True,
                keeps_gathered=True,
            ),
            Strategy(
                name="hsdp",
                label="HSDP",
                summary="Saves time between machines: FSDP2 within each machine, so that only gradients leave it. "
                "Costs memory: each machine keeps all weights, gradients and optimizer state.",
                on_cpu="Processes on one CPU share its memory, so together they need at least the memory of one.",
                shards=True,
                copies_machines=True,
            ),
        )
    }
)
"""Strategies by name, in the order of a form."""
