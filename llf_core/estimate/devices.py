"""Devices that a run could use and the precision it would get there, found without importing torch."""

from __future__ import annotations

import functools
import itertools
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from llf_core.estimate.available import available_memory
from llf_core.estimate.bf16_probe import MIN_SPEEDUP, MOST_DIGITS, cached_speedup, default_threads
from llf_core.launch.cgroup import Cgroup
from llf_core.launch.environment import cpu_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.config import RunConfig

DeviceKind = Literal["cpu", "cuda", "mps"]
BF16_CAPABILITY = 8.0
"""CUDA compute capability from which a GPU computes in bfloat16 (Ampere)."""
QUERY_SECONDS = 5.0
FRESH_SECONDS = 10.0
"""Seconds for which a driver's answer is reused."""
BF16_SPEEDUPS = {" amx_bf16": 6.0, " avx512_bf16": 2.0, " bf16": 2.0}
"""Usual speedup of bfloat16 by the flags of `/proc/cpuinfo`, the fastest first."""
_MIB = 1 << 20
_HALF, _SINGLE = 2, 4


@dataclass(frozen=True)
class Device:
    """A device and its memory.

    Attributes:
        name: for people, and for the table of past runs.
        total: bytes of memory, limits of a container included.
        free: bytes that a run could allocate now.
        bf16: whether it computes in bfloat16; None where a measurement decides.
    """

    kind: DeviceKind
    name: str
    total: int
    free: int
    bf16: bool | None = None
    count: int = 1


@dataclass(frozen=True)
class Precision:
    """Precision of a run on a device; with autocast, trained weights are float32."""

    dtype: str
    autocast: bool
    reason: str

    @property
    def width(self) -> int:
        """Bytes of a value of the compute dtype: 2 or 4."""
        return _SINGLE if self.dtype == "float32" else _HALF


def find_devices() -> tuple[Device, ...]:
    """The devices of this machine, the one that a run would use first, and the CPU last.

    GPUs are found by NVIDIA's library or, without it, by `nvidia-smi`. Left out are those that `CUDA_VISIBLE_DEVICES`
    hides by number, and all of them if the installed torch is a CPU build.
    """
    gpus = _gpus(int(time.monotonic() / FRESH_SECONDS), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return (*gpus, *_apple(), _cpu_device())


def _cpu_device() -> Device:
    """The CPU with the memory that this process may use, which a container may limit."""
    total, limit = int(psutil.virtual_memory().total), Cgroup().memory_limit()
    return Device("cpu", _cpu(), total if limit is None else min(total, limit), available_memory())


def device_of(config: RunConfig, devices: tuple[Device, ...]) -> Device:
    """The device that a run would use, as `llf_core.models.device.plan_device` chooses it from at least one."""
    return devices[-1] if config.get("use_cpu") else devices[0]


def precision_of(config: RunConfig, device: Device) -> Precision:
    """The precision that a run would get on a device, as `llf_core.models.device.plan_device` chooses it.

    On a CPU, it is that of the last run with as many threads; before the first run, the processor's instructions
    decide. A precision that is set is returned also where the device does not support it.
    """
    requested = next((key for key in ("pure_bf16", "bf16", "fp16") if config.get(key)), None)
    if requested is not None:
        dtype = "float16" if requested == "fp16" else "bfloat16"
        return Precision(dtype, requested != "pure_bf16", f"{dtype}, as set by {requested}")
    if device.kind == "cuda":
        dtype = "float16" if device.bf16 is False else "bfloat16"
        return Precision(dtype, autocast=True, reason=f"{dtype}, which this GPU computes in")
    if device.kind == "mps":
        return Precision("float32", autocast=False, reason="float32")
    speedup = cached_speedup(config.launch.threads or default_threads())
    if speedup is not None:
        fast = speedup >= MIN_SPEEDUP
        reason = f"{'bfloat16' if fast else 'float32'}: bfloat16 was timed {speedup:.1f} times as fast on this CPU"
    else:
        fast = _has_bf16_instructions()
        reason = (
            f"{'bfloat16' if fast else 'float32'}, by the instructions of this CPU; its first run will measure which "
            "is faster"
        )
    return Precision("bfloat16" if fast else "float32", fast, reason)


@functools.cache
def _cpu() -> str:
    return cpu_name()


def _has_bf16_instructions() -> bool:
    """Whether the instructions multiply faster in bfloat16; false without a `/proc/cpuinfo`, as on macOS."""
    return usual_bf16_speedup() > 1


@functools.cache
def usual_bf16_speedup() -> float:
    """Speedup of bfloat16 products over float32 by the processor's instructions, until a run has measured it.

    6 with AMX, as `bf16_benchmark` measured it on a Xeon; 2 with AVX-512 BF16 or the same of an ARM processor; 1
    without them and without a `/proc/cpuinfo`, as on macOS.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 1.0
    return next((speedup for flag, speedup in BF16_SPEEDUPS.items() if flag in text), 1.0)


@functools.lru_cache(maxsize=4)
def _gpus(_moment: int, visible: str | None) -> tuple[Device, ...]:
    if _is_cpu_build() or (visible is not None and not visible.strip()):
        return ()
    found = _ask_library()
    found = _ask_command() if found is None else found
    if visible is not None and not visible.strip().startswith(("GPU-", "MIG-")):
        found = _chosen(found, [part.strip() for part in visible.split(",")])
    return tuple(Device(one.kind, one.name, one.total, one.free, one.bf16, len(found)) for one in found)


def _chosen(found: list[Device], numbers: list[str]) -> list[Device]:
    """`CUDA_VISIBLE_DEVICES` ends at the first invalid number, such as -1."""
    valid = itertools.takewhile(
        lambda one: one.isdecimal() and len(one) <= MOST_DIGITS and int(one) < len(found), numbers
    )
    return [found[int(number)] for number in valid]


@functools.cache
def _is_cpu_build() -> bool:
    """By the version of the installed torch; false without torch."""
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def _ask_library() -> list[Device] | None:
    """The GPUs by NVIDIA's library; None without it or a driver."""
    try:
        import pynvml  # type: ignore[import-untyped]  # NVIDIA ships no types
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            bf16 = float(f"{major}.{minor}") >= BF16_CAPABILITY
            found.append(Device("cuda", str(name), int(memory.total), int(memory.free), bf16))
    except Exception:  # noqa: BLE001 - a driver may raise anything; a forecast for the CPU is better than none
        return None
    return found


def _ask_command(run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run) -> list[Device]:
    """The GPUs by `nvidia-smi`; empty without it."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = "--query-gpu=name,memory.total,memory.free,compute_cap"
    try:
        told = run(
            [command, query, "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=QUERY_SECONDS, check=True,
        )  # fmt: skip
        rows = [[part.strip() for part in line.split(",")] for line in told.stdout.splitlines() if line.strip()]
        return [
            Device("cuda", name, int(total) * _MIB, int(free) * _MIB, float(capability) >= BF16_CAPABILITY)
            for name, total, free, capability in rows
        ]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _apple() -> tuple[Device, ...]:
    """The GPU of an Apple processor shares the memory of the CPU."""
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return ()
    return (Device("mps", "Apple GPU", int(psutil.virtual_memory().total), available_memory()),)
