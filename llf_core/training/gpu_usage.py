"""GPU utilization, memory and temperature from the driver."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 1.0
"""Minimum time between two queries."""


class GpuLoad:
    """Queries NVIDIA's driver (package nvidia-ml-py) about the run's GPU, which other processes may use too."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._next = 0.0
        self._queries: dict[str, Callable[[], float]] = {}
        if device.type == "cuda":
            self._queries = {
                "gpu/utilization": lambda: torch.cuda.utilization(device) / 100,
                "gpu/memory": self._memory,
                "gpu/temperature": lambda: float(torch.cuda.temperature(device)),
            }

    def read(self) -> dict[str, float]:
        """Read the current values, at most once a second.

        Returns:
            `gpu/utilization` (share of the driver's last sample period, at most a second, in which a kernel ran, 0
                to 1), `gpu/memory` (share of the GPU's memory used by all processes, 0 to 1) and `gpu/temperature`
                (°C). Values that the driver does not provide (without nvidia-ml-py, or for a MIG partition) are
                omitted. Empty on other devices, and within a second of the last query.
        """
        now = time.monotonic()
        if not self._queries or now < self._next:
            return {}
        self._next = now + SECONDS
        found = {}
        for name, query in list(self._queries.items()):
            try:
                found[name] = query()
            except Exception:  # noqa: BLE001 - only a chart needs it: whatever the driver raises, the run continues
                del self._queries[name]
        return found

    def _memory(self) -> float:
        free, total = torch.cuda.mem_get_info(self._device)
        return 1 - free / total
