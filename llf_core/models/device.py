"""The device and precision of a process; on a CPU, by a benchmark of bfloat16 against float32."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llf_core.estimate.devices import MIN_SPEEDUP, default_threads, is_speedup, probe_file, probe_key
from llf_core.models.errors import ModelError
from llf_core.runs.files import json_bytes, replace_file
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch
    from torch import nn

    from llf_core.config import RunConfig

Device = Literal["cuda", "mps", "cpu", "meta"]
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class DevicePlan:
    """Device and precision of a model.

    Attributes:
        device: for `load_model` also `meta`, which makes a model without values.
        dtype: of frozen weights; trained weights are float32 unless `pure_bf16` is set.
        autocast: None where all weights have one dtype.
    """

    device: Device
    dtype: Dtype
    autocast: Dtype | None
    threads: int
    reason: str

    @property
    def place(self) -> str | int:
        """Value of `device_map`. For CUDA an index, which accelerate compares with its own device."""
        import torch

        return torch.cuda.current_device() if self.device == "cuda" else self.device

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype`, a string so that a plan can be stored without torch, as a `torch.dtype`."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


def plan_device(config: RunConfig) -> DevicePlan:
    """Choose CUDA, MPS or the CPU, and the fastest precision that is safe there.

    Sets the process's torch threads, and its GPU by `LOCAL_RANK`.

    Raises:
        ModelError: the config requests a precision that the device does not support.
    """
    import torch

    threads = config.launch.threads or default_threads()
    torch.set_num_threads(threads)
    device, why = _device(use_cpu=bool(config.get("use_cpu")))
    requested = next((key for key in ("pure_bf16", "bf16", "fp16") if config.get(key)), None)
    if requested == "fp16":
        if device == "cpu":
            raise ModelError(
                "fp16: true needs a GPU, and this run uses the CPU. Remove fp16: the fastest precision is then "
                "chosen automatically; bf16: true also works on a CPU."
            )
        return DevicePlan(device, "float16", "float16", threads, f"{why} float16, as set by fp16.")
    if requested is not None:
        if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ModelError(
                f"{requested}: true needs a GPU that computes in bfloat16 (Ampere or newer), and "
                f"{torch.cuda.get_device_name()} does not. Set fp16: true, or remove both."
            )
        autocast: Dtype | None = None if requested == "pure_bf16" else "bfloat16"
        return DevicePlan(device, "bfloat16", autocast, threads, f"{why} bfloat16, as set by {requested}.")
    dtype, reason = _precision(device, threads)
    return DevicePlan(device, dtype, None if dtype == "float32" else dtype, threads, f"{why} {reason}")


def _device(*, use_cpu: bool) -> tuple[Device, str]:
    import torch

    if use_cpu:
        return "cpu", "CPU, as set by use_cpu;"
    if torch.cuda.is_available():
        # Before the first weight is loaded: each of several processes has its own GPU.
        rank = os.environ.get("LOCAL_RANK", "")
        if rank.isdecimal() and int(rank) < torch.cuda.device_count():
            torch.cuda.set_device(int(rank))
        return "cuda", f"{torch.cuda.get_device_name()};"
    if torch.backends.mps.is_available():
        return "mps", "Apple GPU (MPS);"
    return "cpu", "CPU (no GPU found);"


def _precision(device: Device, threads: int) -> tuple[Dtype, str]:
    import torch

    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "bfloat16, which this GPU computes in."
        return "float16", "float16, since this GPU does not compute in bfloat16."
    if device == "mps":
        return "float32", "float32."
    speedup = bf16_speedup(threads)
    if speedup >= MIN_SPEEDUP:
        return "bfloat16", f"bfloat16, which was timed {speedup:.1f} times as fast as float32 on {threads} threads."
    return "float32", f"float32, since bfloat16 was timed {speedup:.1f} times as fast on {threads} threads."


MATRIX_SIZE = 512
ROUNDS = 7


def bf16_speedup(threads: int) -> float:
    """Float32 time of a matrix product divided by its bfloat16 time, rounded to two digits.

    On CPUs without bfloat16 instructions it is often below 1. It is measured once per CPU, torch version and number of
    compute threads, and kept in `cache/probe.json`.
    """
    import torch

    path, key = probe_file(), probe_key(torch.backends.cpu.get_cpu_capability(), threads)
    known = read_object_or_empty(path)
    found = known.get(key)
    if is_speedup(found):
        return float(found)
    measured = round(time_bf16(), 2)
    with suppress(OSError):  # a disk that is full, a home that is not writable: it is measured again
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json_bytes({**known, key: measured}))
    return measured


def time_bf16() -> float:
    """Best float32 time of a 512 x 512 matrix product divided by the best bfloat16 time. Takes about 50 ms."""
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, generator=generator) for _ in range(2))
    pairs = {dtype: (left.to(dtype), right.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(pairs, float("inf"))
    for _ in range(ROUNDS):
        for dtype, (a, b) in pairs.items():
            began = time.perf_counter()
            torch.mm(a, b)
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best[torch.float32] / best[torch.bfloat16]


def autocast_mixed_dtypes(model: nn.Module) -> AbstractContextManager[object]:
    """Autocast to the half-precision dtype of a model that has full-precision weights too, outside of the Trainer.

    A null context if all floating-point weights have one dtype.
    """
    import torch

    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    half = next(iter(dtypes & {torch.bfloat16, torch.float16}), None)
    if half is None or len(dtypes) == 1:
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, half)
