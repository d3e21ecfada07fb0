"""Retry after out of memory: the step is rolled back, split into smaller parts and computed again."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from llf_core.data.collate import split_batch
from llf_core.models.memory import is_out_of_memory
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Batch = Mapping[str, Any]

Result = TypeVar("Result")


class DoesNotFitError(UserError):
    """Out of memory on the smallest part of a batch, a single document."""


def empty_caches() -> None:
    """Free cached memory of the process and its device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


class RNGState:
    """RNG state of the CPU and the device, so that a step that is computed again draws the same numbers."""

    def __init__(self, device: torch.device) -> None:
        """Save the current state."""
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self._mps = torch.mps.get_rng_state() if device.type == "mps" else None
        self._device = device

    def restore(self) -> None:
        """Restore the saved state."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)


class BatchSplitter:
    """Computes each batch in a number of parts, which doubles whenever memory runs out.

    Attributes:
        count: parts of a batch, a power of two; a batch of fewer documents has one part a document.
    """

    def __init__(self, tell: Callable[[Batch, int], None]) -> None:
        """Begin with whole batches.

        Args:
            tell: called with the part that did not fit and the new count, before the retry. Raises `DoesNotFitError`
                if the part cannot be halved.
        """
        self.count = 1
        self._tell = tell

    def run(
        self,
        batches: Sequence[Batch],
        compute: Callable[[dict[str, Any], bool], Result],
        *,
        undo: Callable[[], Sequence[Batch]],
    ) -> list[Result]:
        """Compute batches part by part; after out of memory, all of them again in twice as many parts.

        Args:
            compute: computes one part; its second argument is whether that is the last one.
            undo: reverts all that `compute` has done; returns the batches to compute again, earlier ones included.
        """
        while True:
            results: list[Result] = []
            part = batches[0]
            try:
                parts = [own for batch in batches for own in split_batch(batch, self.count)]
                for part in parts:
                    results.append(compute(part, part is parts[-1]))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return results
            # Outside the handler: until the error is gone, its traceback keeps the failed graph in memory.
            results.clear()
            batches = undo()
            empty_caches()
            self._tell(part, self.count * 2)
            self.count *= 2
