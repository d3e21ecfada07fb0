"""How busy, full and hot the GPU is, as its driver tells it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 1.0
"""Time between two questions to the driver."""


class GpuLoad:
    """Asks NVIDIA's driver (package nvidia-ml-py) about the GPU that a run computes on."""

    def __init__(self, device: torch.device) -> None:
        """Takes the run's device.

        Args:
            device: any other than a CUDA device has no numbers.
        """
        self._device = device
        self._next = 0.0
        self._asked: dict[str, Callable[[], float]] = {}
        if device.type == "cuda":
            self._asked = {
                "gpu/utilization": lambda: torch.cuda.utilization(device) / 100,
                "gpu/memory": self._memory,
                "gpu/temperature": lambda: float(torch.cuda.temperature(device)),
            }

    def read(self) -> dict[str, float]:
        """The current numbers; none on other devices, and none within a second of the last ones.

        Returns:
            `gpu/utilization` (share of the last second in which a kernel ran, 0 to 1), `gpu/memory` (share of the
            GPU's memory that all processes hold, 0 to 1) and `gpu/temperature` (°C). What the driver does not tell
            (without nvidia-ml-py, or of a part of a GPU) is left out.
        """
        now = time.monotonic()
        if not self._asked or now < self._next:
            return {}
        self._next = now + SECONDS
        found = {}
        for name, ask in list(self._asked.items()):
            try:
                found[name] = ask()
            except Exception:  # noqa: BLE001 - a number for a view: whatever keeps it away, the run goes on
                del self._asked[name]
        return found

    def _memory(self) -> float:
        free, total = torch.cuda.mem_get_info(self._device)
        return 1 - free / total
