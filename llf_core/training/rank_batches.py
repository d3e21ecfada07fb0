"""The batches of one rank: its share of each batch of all ranks, without repeated examples."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import BatchSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.utils.data import DataLoader


class RankBatches(BatchSampler):
    """A rank's share of the batches of a sampler, in the order in which one process would read them.

    accelerate fills the last batches with examples from the beginning, which would count twice. Here the last batch
    of a rank is short, or, if nothing is left for it, one example that `is_void` excludes from the loss.

    ```
    7 examples, batches of 2, 2 ranks:  rank 0 [0 1] [4 5]   rank 1 [2 3] [6]
    5 examples, batches of 2, 2 ranks:  rank 0 [0 1] [4]     rank 1 [2 3] [4], which is void
    ```
    """

    def __init__(self, batches: BatchSampler, rank: int, ranks: int) -> None:
        self._batches, self._rank, self._ranks = batches, rank, ranks
        # accelerate reads these, and sets the epoch of the sampler.
        self.sampler, self.batch_size, self.drop_last = batches.sampler, batches.batch_size, batches.drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter(self._batches)
        while group := list(islice(batches, self._ranks)):
            whole = list(chain.from_iterable(group))
            own = whole[self._rank * self.batch_size : (self._rank + 1) * self.batch_size]
            if len(whole) == self.batch_size * self._ranks or not self.drop_last:
                yield own or whole[:1]

    def __len__(self) -> int:
        return len(self._batches) // self._ranks if self.drop_last else -(-len(self._batches) // self._ranks)

    @property
    def last_is_void(self) -> bool:
        """Whether nothing is left for this rank in the last batch."""
        left = len(self.sampler) % (self.batch_size * self._ranks)  # type: ignore[arg-type]
        return not self.drop_last and 0 < left <= self._rank * self.batch_size


def share_batches(loader: DataLoader[Any], rank: int, ranks: int) -> None:
    """Replace accelerate's shares of the batches of a prepared loader by `RankBatches`; streams have none."""
    shares: Any = loader.batch_sampler
    if hasattr(shares, "num_processes") and ranks > 1:
        shares.batch_sampler = RankBatches(shares.batch_sampler, rank, ranks)
        shares.num_processes, shares.process_index, shares.even_batches = 1, 0, False


def is_void(loader: Any) -> bool:
    """Whether the last batch of a prepared loader is void for this rank, see `RankBatches`."""
    sampler = getattr(loader, "batch_sampler", None)
    while sampler is not None and not isinstance(sampler, RankBatches):
        sampler = getattr(sampler, "batch_sampler", None)
    return sampler is not None and bool(loader.end_of_dataloader) and sampler.last_is_void
