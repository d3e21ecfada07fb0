from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llf_core.estimate.bf16_probe import MIN_SPEEDUP, default_threads
from llf_core.models.bf16_benchmark import bf16_speedup
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    import torch

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
