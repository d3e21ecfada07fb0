"""The processes that train together (ranks), as torchrun numbers them: what they sum up and tell each other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_control: list[Any] = []
"""The group of small Python values, of the CPU whatever the device: rank 0 must not wait for a GPU to tell them."""


def world_size() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process is rank 0, which alone writes the run's folder."""
    return rank() == 0


def join_ranks(*, cpu: bool) -> None:
    """Wait for the other ranks and make the process groups; does nothing in a run of one process.

    Args:
        cpu: whether gradients are on the CPU (gloo) and not on NVIDIA GPUs (NCCL).

    Raises:
        ModelError: there are fewer GPUs than processes.
    """
    if world_size() > 1 and not dist.is_initialized():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if not cpu and local >= gpus:
            raise ModelError(
                f"`num_processes` is {world_size()}, and this machine has {gpus} GPUs, one for each process. "
                f"Set num_processes: {gpus}, or use_cpu: true."
            )
        if not cpu:
            torch.cuda.set_device(local)
        dist.init_process_group("gloo" if cpu else "nccl")
        _control.append(dist.group.WORLD if cpu else dist.new_group(backend="gloo"))


def _control_group() -> Any:
    """The group of small values; None for torch's only group, where something else has joined the ranks."""
    return _control[0] if _control else None


def from_main(make: Callable[[], T]) -> T:
    """What `make` returns on rank 0, on all ranks, which must all call this; it is pickled for the others."""
    if world_size() == 1:
        return make()
    values: list[Any] = [make() if is_main() else None]
    dist.broadcast_object_list(values, src=0, group=_control_group())
    return values[0]  # type: ignore[no-any-return]


def from_all(own: T) -> list[T]:
    """The values of all ranks, in their order; all ranks must call this."""
    if world_size() == 1:
        return [own]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, own, group=_control_group())
    return values


def wait_for_ranks() -> None:
    """Return once all ranks have called this."""
    from_all(None)


def lost_rank(error: BaseException) -> bool:
    """Whether an error says that another rank has ended, which is then the one to blame."""
    said = str(error)
    return world_size() > 1 and (
        isinstance(error, dist.DistBackendError | dist.DistNetworkError) or "gloo/transport" in said
    )


def sum_over_ranks(own: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all ranks (all-reduce), so that a mean over processes with unequal batches is exact.

    Args:
        own: tensor of this process, the same shape `[...]` in all processes, which must all call this; not changed.

    Returns:
        The sum, of the shape of `own` and on its device, detached. With one process, `own` detached.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return own.detach()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if dist.get_backend() == "nccl" else "cpu"
    whole = own.detach().to(device, copy=True)
    dist.all_reduce(whole)
    return whole.to(own.device)
