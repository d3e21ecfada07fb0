from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.estimate.bf16_probe import cores
from llf_core.estimate.cards import card_of
from llf_core.estimate.cpu_probe import thread_flops

if TYPE_CHECKING:
    from llf_core.estimate.devices import Device

OTHER_GPU = 50e12
"""Dense half-precision products a second of a GPU that is not in `cards.toml`: less than any that is."""
APPLE = 4e12
"""The same of the GPU of an Apple processor, roughly."""
GPU_SHARE = 0.4
"""Share of the data sheet's speed that training reaches on a GPU.

arXiv 2205.05198, table 5, reports 0.42 to 0.56 for 22 to 1,000 billion parameters; smaller models reach less.
"""


def products_per_second(device: Device, threads: int) -> tuple[float, str]:
    """Floating-point operations a second of matrix products on a device, and their source as a part of a sentence.

    On a CPU the fastest float32 products, of which `step_time.CPU_SHARE` remains in a step; elsewhere what training
    reaches in half precision.
    """
    if device.kind == "cpu":
        return min(threads, cores()) * thread_flops(), "matrix products timed on this CPU"
    if device.kind == "mps":
        return APPLE * GPU_SHARE, "the usual speed of an Apple GPU"
    if (card := card_of(device)) is not None:
        return card.flops * GPU_SHARE, f"the data sheet of {device.name}"
    return OTHER_GPU * GPU_SHARE, "the speed of a usual GPU, since this one is not known"
