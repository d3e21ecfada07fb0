"""The processes that train together (ranks, as numbered by torchrun), and their collective operations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")
BUCKET = 2**24
"""Maximum number of gradient values in one all-reduce; chosen by hand."""
_control: list[Any] = []
"""Group for small Python values, always on the CPU: rank 0 must not wait for a GPU to send them."""


def world_size() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process is rank 0, the only one that writes the run's folder."""
    return rank() == 0


def join_ranks(*, cpu: bool) -> None:
    """Wait for the other ranks and create the process groups (gloo if `cpu`, else NCCL) if there are several.

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
    return _control[0] if _control else None


def from_main(make: Callable[[], T]) -> T:
    """Result of `make` on rank 0, pickled to all ranks, which must all call this."""
    if world_size() == 1:
        return make()
    values: list[Any] = [make() if is_main() else None]
    dist.broadcast_object_list(values, src=0, group=_control_group())
    return values[0]  # type: ignore[no-any-return]


def from_all(own: T) -> list[T]:
    """Values of all ranks in rank order; all ranks must call this."""
    if world_size() == 1:
        return [own]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, own, group=_control_group())
    return values


def wait_for_ranks() -> None:
    """Return once all ranks have called this."""
    from_all(None)


def lost_rank(error: BaseException) -> bool:
    """Whether an error says that another rank has ended or failed."""
    if world_size() == 1:
        return False
    from torch.distributed.checkpoint.api import CheckpointException  # late: its import takes time

    if isinstance(error, CheckpointException):
        return dist.get_rank() not in error.failures
    return isinstance(error, dist.DistBackendError | dist.DistNetworkError) or "gloo/transport" in str(error)


def sum_over_ranks(own: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor `[...]` over all ranks (all-reduce), detached; all ranks must call this. `own` is not changed."""
    if not (dist.is_available() and dist.is_initialized()):
        return own.detach()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if dist.get_backend() == "nccl" else "cpu"
    whole = own.detach().to(device, copy=True)
    dist.all_reduce(whole)
    return whole.to(own.device)


def largest_of_ranks(own: Sequence[int]) -> list[int]:
    """Element-wise maximum of integers over all ranks, which must all call this."""
    values = torch.tensor(own)
    dist.all_reduce(values, op=dist.ReduceOp.MAX, group=_control_group())
    return values.tolist()


def average_gradients(parameters: Sequence[torch.Tensor], present: Sequence[int]) -> None:
    """Replace the gradients of this rank by the means over all ranks, which must all call this.

    Args:
        parameters: of any shape.
        present: whether any rank has a gradient of each; the others stay None.
    """
    missing = [one for one, there in zip(parameters, present, strict=True) if there and one.grad is None]
    for parameter in missing:
        parameter.grad = torch.zeros_like(parameter)
    for gradients in _buckets(one.grad for one in parameters if one.grad is not None):
        flat = torch.cat([one.reshape(-1) for one in gradients]).div_(world_size())
        dist.all_reduce(flat)
        for one, mean in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
            one.copy_(mean.view_as(one))


def _buckets(tensors: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    found: list[list[torch.Tensor]] = []
    size = 0
    for one in tensors:
        if not found or found[-1][0].dtype != one.dtype or size + one.numel() > BUCKET:
            found.append([])
            size = 0
        found[-1].append(one)
        size += one.numel()
    return found


def parameter_sum(parameters: Iterable[torch.Tensor]) -> int:
    """Checksum of parameters of any shape: exact sum of their bits as 8-byte integers, in any order."""
    whole = 0
    for parameter in parameters:
        flat = parameter.detach().reshape(-1)
        if flat.storage_offset() * flat.element_size() % 8:
            flat = flat.clone()
        octets = flat.view(torch.uint8)
        cut = len(octets) // 8 * 8
        whole += int(octets[:cut].view(torch.int64).sum()) + int(octets[cut:].sum(dtype=torch.int64))
    return whole
