"""The processes that train together (ranks), their collective operations, and FSDP2 (torch's `fully_shard`)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from llf_core.models.architecture import computes_rows_alone
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

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


FOLDER = "optimizer_shards"
"""Folder of a checkpoint with the optimizer's state as safetensors files, one of each rank."""


def shard(model: nn.Module, device: torch.device, *, keeps: bool = False, copies: int = 1) -> None:
    """Split the parameters among the ranks, by layers: a layer is whole only while it computes.

    Args:
        model: with its adapters; whole and the same on all ranks, or whole on rank 0 alone, on the CPU, and on the
            device `meta` on the others, which then get their shares of each layer from it.
        keeps: whether a layer that was gathered stays whole until its backward pass (ZeRO-2), or only while it computes
            (ZeRO-3).
        copies: number of groups of successive ranks that each keep all shares.

    Raises:
        ModelError: torch has left a parameter whole, the ranks would compute different numbers of rows, or the ranks
            have made different models.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor
    from transformers.modeling_layers import GradientCheckpointingLayer

    if computes_rows_alone(model):  # each row gathers the layers, and ranks have as many rows as they have padding
        raise ModelError("FSDP2 does not train models with indexed attention. Set strategy: ddp.")
    shape = (world_size(),) if copies == 1 else (copies, world_size() // copies)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("copy", "shard")[-len(shape) :])
    waiting = _waiting(model)
    for path, module in list(model.named_modules()):
        if isinstance(module, GradientCheckpointingLayer):
            _hand_out(waiting, f"{path}.", device)
            fully_shard(module, mesh=mesh, reshard_after_forward=not keeps)
    _hand_out(waiting, "", device)
    fully_shard(model, mesh=mesh)
    if whole := [name for name, one in model.named_parameters() if not isinstance(one, DTensor)]:
        raise ModelError(f"FSDP2 does not shard {whole[0]} of this model. Set strategy: ddp.")


def _waiting(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, buffers and tensors in attributes by name, if rank 0 alone has their values; none if all ranks do.

    Raises:
        ModelError: the tensors of this rank differ from those of the last one in names, shapes or types.
    """
    held: dict[int, tuple[str, torch.Tensor]] = {}
    for path, module in model.named_modules():
        for kept in (module._parameters, module._buffers, vars(module)):  # noqa: SLF001 - the tensors themselves
            for key, one in kept.items():
                if isinstance(one, torch.Tensor):
                    held.setdefault(id(one), (f"{path}.{key}", one))
    facts = {name: (tuple(one.shape), one.dtype, one.requires_grad) for name, one in held.values()}
    registered = {id(one) for one in (*model.parameters(), *model.buffers())}
    needed = {name: facts[name] for name, one in held.values() if one.is_meta or id(one) in registered}
    expected, waits = from_all((needed, any(one.is_meta for _, one in held.values())))[-1]
    if not waits:
        return {}
    found = {name: one for name, one in facts.items() if name in needed or name in expected}
    if others := {name for name, _ in found.items() ^ expected.items()}:
        name = min(others)
        raise ModelError(
            f"{type(model).__name__} cannot be sharded: {name} is {found.get(name)} in process {rank()} and "
            f"{expected.get(name)} in process {world_size() - 1}. Set strategy: ddp."
        )
    return {name: one for name, one in held.values() if name in expected}


def _hand_out(waiting: dict[str, torch.Tensor], path: str, device: torch.device) -> None:
    """Give the tensors of a module the values of rank 0 on the device of each rank, and take them off the list."""
    for name in [name for name in waiting if name.startswith(path)]:
        tensor = waiting.pop(name)
        whole = tensor.detach().to(device).contiguous() if is_main() else torch.empty_like(tensor, device=device)
        if whole.numel():
            dist.broadcast(whole.view(-1).view(torch.uint8), src=0)
        if is_main():
            tensor.data = whole
        else:
            made = nn.Parameter(whole, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else whole
            vars(made).update(vars(tensor))
            torch.utils.swap_tensors(tensor, made)  # type: ignore[no-untyped-call]  # torch's


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has split this model."""
    return hasattr(model, "set_requires_gradient_sync")  # of torch's FSDPModule, whose import takes time


@contextmanager
def whole_on_main(model: nn.Module, *, trained: bool = False) -> Iterator[None]:
    """Context in which rank 0 has the whole parameters of a sharded model, one after the other, and computes alone.

    All ranks must enter it together; the others keep their shards and must not use the model. Does nothing with a model
    that is not sharded.
    """
    if not is_sharded(model):
        yield
        return
    from torch.distributed.tensor import DTensor

    modules = list(model.modules())
    for module in filter(is_sharded, modules):
        module.reshard()  # type: ignore[operator]
    shards = [
        (module, name, one)
        for module in modules
        for name, one in module.named_parameters(recurse=False, remove_duplicate=False)
        if isinstance(one, DTensor) and (one.requires_grad or not trained)
    ]
    whole: dict[int, nn.Parameter] = {}
    shared: Any
    for shared in {id(one): one for _, _, one in shards}.values():
        full = shared.detach().full_tensor()
        if is_main():
            whole[id(shared)] = nn.Parameter(full, shared.requires_grad)
    if not is_main():
        yield
        return
    for module, name, one in shards:
        module.register_parameter(name, whole[id(one)])
    try:
        with _without_gathering(modules):
            yield
    finally:
        for module, name, one in shards:
            module.register_parameter(name, one)


@contextmanager
def _without_gathering(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Context without the hooks and classes of `fully_shard`, which would wait for the other ranks."""
    from torch.distributed.fsdp import fully_shard

    before: list[tuple[dict[int, Any], dict[int, Any]]] = []
    state: Any = fully_shard
    classes = [(module, type(module)) for module in modules if is_sharded(module)]
    for module, _ in classes:
        for hooks in (module._forward_pre_hooks, module._forward_hooks):  # noqa: SLF001 - torch cannot pause hooks
            before.append((hooks, dict(hooks)))
            for key, hook in before[-1][1].items():
                if getattr(hook, "__self__", None) is state.state(module):
                    del hooks[key]
    for module, kind in classes:
        module.__class__ = kind.__mro__[2]  # after torch's own and `FSDPModule`
    try:
        yield
    finally:
        for module, kind in classes:
            module.__class__ = kind
        for hooks, all_hooks in before:
            hooks.clear()
            hooks.update(all_hooks)


def keep_shards_apart(optimizer: torch.optim.Optimizer) -> None:
    """Leave the shards out of the optimizer's `state_dict`, as `save_shards` writes them."""
    from torch.distributed.tensor import DTensor

    def without_shards(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        own = {
            number: {key: value for key, value in one.items() if not isinstance(value, DTensor)}
            for number, one in state["state"].items()
        }
        return state | {"state": own}

    optimizer.register_state_dict_post_hook(without_shards)


def save_shards(optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Write this rank's share of the optimizer's state; all ranks must call it."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save
    from torch.distributed.tensor import DTensor

    shards = {
        f"{number}.{key}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, DTensor)
    }
    try:
        save(shards, storage_writer=HuggingFaceStorageWriter(str(checkpoint / FOLDER), save_distributed=True))
    except CheckpointException as error:  # on all ranks, wherever it happened
        if own := error.failures.get(torch.distributed.get_rank()):
            raise own[0] from error
        raise


def restore_shards(optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Complete the state that a trainer has loaded, whichever number of ranks has written it: this rank's share of it.

    Args:
        optimizer: of sharded or of whole parameters; has loaded its `state_dict`.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.tensor import DTensor, distribute_tensor, empty

    parameters = _parameters(optimizer)
    for parameter in parameters:  # what one process has saved is whole
        for key, value in optimizer.state[parameter].items() if isinstance(parameter, DTensor) else ():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.ndim:
                optimizer.state[parameter][key] = distribute_tensor(
                    value, parameter.device_mesh, parameter.placements, src_data_rank=None
                )
    if not (checkpoint / FOLDER).is_dir():
        return
    reader = HuggingFaceStorageReader(str(checkpoint / FOLDER))
    found: dict[str, Any] = {}
    facts: Any
    for name, facts in reader.read_metadata().state_dict_metadata.items():
        number, _, key = name.partition(".")
        parameter, size, dtype = parameters[int(number)], facts.size, facts.properties.dtype
        found[name] = (
            empty(size, dtype=dtype, device_mesh=parameter.device_mesh, placements=parameter.placements)
            if isinstance(parameter, DTensor)
            else torch.empty(size, dtype=dtype, device=parameter.device)
        )
        optimizer.state[parameter][key] = found[name]
    load(found, storage_reader=reader, no_dist=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [one for group in optimizer.param_groups for one in group["params"]]
