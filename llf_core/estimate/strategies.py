"""What a strategy divides among the processes of a run, and what they send each other in a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.sections import STRATEGIES
from llf_core.estimate.devices import card_of

if TYPE_CHECKING:
    from llf_core.estimate.devices import Device

DDP_BUCKET = 25 << 20
"""Bytes of gradients that DDP sums in one call (torch's `bucket_cap_mb`)."""
GATHERED_LAYERS = 2
"""Layers that are whole at a time: the one that computes, and the next one, or the copy that it is received in."""
BACKWARD = 2 / 3
"""Share of the backward pass in the operations of a step."""


@dataclass(frozen=True)
class Shares:
    """The processes of a run and what is divided among them.

    Attributes:
        name: a key of `llf_core.config.sections.STRATEGIES`.
        ranks: number of processes on all machines.
    """

    name: str = "ddp"
    ranks: int = 1
    machines: int = 1

    @property
    def parts(self) -> int:
        """In how many parts weights, gradients and optimizer state are divided."""
        return self.ranks // self.copies if STRATEGIES[self.name].shards else 1

    def held(self, amount: int, whole: int = 0) -> int:
        """Bytes of an amount that a process keeps, of which `whole` are not divided."""
        return whole + (amount - whole) // self.parts

    @property
    def copies(self) -> int:
        """How many groups of processes have all parts among them, if there are parts."""
        return self.machines if STRATEGIES[self.name].copies_machines else 1

    @property
    def keeps(self) -> bool:
        """Whether a layer that was gathered stays whole until its backward pass."""
        return STRATEGIES[self.name].keeps_gathered


def communication_bytes(
    shares: Shares, weights: int, outer: tuple[int, int], layer: tuple[int, int], gradients: int
) -> int:
    """Bytes of what a process holds for the others, beside its share of weights, gradients and optimizer state.

    DDP: the buckets, which hold all gradients once more. Sharded: the gathered layers, `GATHERED_LAYERS` or all; and
    the weights outside the layers, which stay whole until the backward pass ends, with their gradients and the copy of
    these that is sent.
    """
    if shares.ranks == 1:
        return 0
    if shares.parts == 1:
        return gradients
    gathered = weights + layer[0] if shares.keeps else outer[0] + GATHERED_LAYERS * layer[0]
    return gathered + outer[1] + max(outer[1], layer[1])


@dataclass(frozen=True)
class Link:
    """What the processes of a run are connected by.

    Attributes:
        bandwidth: bytes a second in one direction that each process sends within a machine.
        network: bytes a second in one direction between machines, all processes of one together.
        hop: seconds from one process to the next within a machine, beside the bytes.
        tree_hop: the same in a tree, of messages of few bytes.
        overlaps: whether a process sends while it computes; on a CPU the same cores do both.
    """

    bandwidth: float
    network: float
    machine: int
    hop: float
    tree_hop: float
    overlaps: bool = True


NET_HOP, NET_TREE_HOP = 9.6e-6, 8.5e-6
NVLINK, PCIE = (3.4e-6, 1.2e-6), (5.7e-6, 1.9e-6)
"""Seconds of a hop in a ring and in a tree. Source: NCCL, `src/graph/tuning.cc`, `hwLat`: ring with protocol Simple and
tree with LL128, over NVLink, PCIe and the network."""
FASTEST_PCIE = 64e9
LOOPBACK = Link(bandwidth=1.1e9, network=0.125e9, machine=1 << 20, hop=4.6e-3, tree_hop=4.6e-3, overlaps=False)
"""Processes of gloo on the CPU of one machine, measured by `benchmarks.scale` on two cores."""
OTHER = Link(bandwidth=16e9, network=1.25e9, machine=8, hop=PCIE[0], tree_hop=PCIE[1])
"""Links of a GPU that is not in the table: PCIe 3.0 and 10 Gbit/s, on the safe side."""


def link_of(device: Device) -> Link:
    """What connects several of a device."""
    if device.kind != "cuda":
        return LOOPBACK
    card = card_of(device)
    if card is None:
        return OTHER
    hop, tree_hop = NVLINK if card.link > FASTEST_PCIE else PCIE
    return Link(card.link, card.network, card.machine, hop, tree_hop)


@dataclass(frozen=True)
class Traffic:
    """What a process sends in an optimizer step.

    Attributes:
        sent: bytes.
        seconds: how long the link takes for them.
        hidden: seconds of these that may pass while the process computes, at most.
        window: share of the computation beside which they may: gradients are sent in the backward pass alone.
    """

    sent: int
    seconds: float
    hidden: float
    window: float = 1.0

    def exposed(self, compute: float) -> float:
        """Seconds in which a process waits for the link, in a step that computes for `compute` seconds."""
        return self.seconds - min(self.hidden, compute * self.window)


def traffic(shares: Shares, link: Link, size: tuple[int, int], layers: int, passes: int) -> Traffic:
    """What each process sends in a step, and the time it takes, by the ring algorithm.

    | strategy | sent, times (N - 1) / N |
    |---|---|
    | ddp | gradients twice: all-reduce |
    | fsdp2 | in each micro-batch all weights before each pass: all-gather; and gradients: reduce-scatter |
    | zero2 | the same with one all-gather |
    | hsdp | fsdp2 within the machine; and each process its share of gradients twice between machines |

    A ring of N processes takes N - 1 hops for a reduce-scatter or an all-gather, and an all-reduce is both; a tree
    takes fewer. A ring leaves a machine once, so that all its ports together carry what one process sends.

    Args:
        size: bytes of all weights, and of the gradients.

    Source:
        Volumes: ZeRO, arXiv 1910.02054, section 7. Rings: Thakur, Rabenseifner and Gropp, Optimization of Collective
        Communication Operations in MPICH (2005), section 4. Hops: NCCL, `src/graph/tuning.cc`.
    """
    ranks, (weights, gradients) = shares.ranks, size
    if ranks == 1:
        return Traffic(0, 0.0, 0.0)
    if shares.copies > 1:
        return _between_machines(shares, link, size, layers, passes)
    share = (ranks - 1) / ranks
    bandwidth = link.bandwidth if ranks <= link.machine else min(link.bandwidth, link.network)
    ring, tree = _hops(ranks, link)
    if shares.parts == 1:
        sent, buckets = share * 2 * gradients, math.ceil(gradients / DDP_BUCKET)
        whole = sent / bandwidth + buckets * min(2 * ring, tree)
        last = whole / max(1, buckets)  # is complete when the backward pass ends
        return Traffic(round(sent), whole, (whole - last) * link.overlaps, window=BACKWARD)
    gathers, blocks = 1 if shares.keeps else 2, layers + 1
    sent = share * passes * (gathers * weights + gradients)
    whole = sent / bandwidth + passes * (gathers + 1) * blocks * ring
    first = whole / blocks  # nothing is computed before the first weights are there, and after the last gradients
    return Traffic(round(sent), whole, (whole - first) * link.overlaps)


def _between_machines(shares: Shares, link: Link, size: tuple[int, int], layers: int, passes: int) -> Traffic:
    """What FSDP2 sends within a machine, and the sums of shares between machines, which all its processes send at once.

    Nothing is computed while the sums of the last block are sent.
    """
    parts, copies, gradients = shares.parts, shares.copies, size[1]
    within = traffic(Shares("fsdp2", parts), link, size, layers, passes)
    sums = passes * 2 * (copies - 1) / copies * gradients / parts
    hops = passes * (layers + 1) * 2 * min(copies - 1, math.ceil(math.log2(copies))) * NET_HOP
    between = sums / min(link.bandwidth, link.network / parts) + hops
    hidden = within.hidden + between * layers / (layers + 1) * link.overlaps
    return Traffic(within.sent + round(sums), within.seconds + between, hidden)


def _hops(ranks: int, link: Link) -> tuple[float, float]:
    """Seconds of the hops of a reduce-scatter or an all-gather in a ring, and of an all-reduce in a tree."""
    machines = -(-ranks // link.machine)
    within = min(ranks, link.machine) - 1
    ring = (ranks - machines) * link.hop + (machines - 1) * NET_HOP
    return ring, 2 * (within * link.tree_hop + math.ceil(math.log2(machines)) * NET_TREE_HOP)
