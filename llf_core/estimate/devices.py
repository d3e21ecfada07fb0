"""Devices that a run could use and the precision it would get there, found without importing torch."""

from __future__ import annotations

import functools
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard

import psutil

from llf_core.config import ConfigError, Problem
from llf_core.launch.environment import Cgroup, cpu_name, usable_cpus
from llf_core.runs import home
from llf_core.untrusted import read_object_or_empty

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


MEMORY_SHARE = 0.9
"""Share of the free memory that a forecast, which is inexact, may fill."""


def available_memory(cgroup: Cgroup | None = None) -> int:
    """Bytes that this process can still allocate without swapping and within its container's limit."""
    free = int(psutil.virtual_memory().available)
    room = (cgroup or Cgroup()).memory_left()
    return free if room is None else max(0, min(free, room))


MIN_SPEEDUP = 1.1
"""Speedup from which a run computes in bfloat16; chosen by hand."""
MOST_SPEEDUP = 1000.0

MOST_DIGITS = 6
"""Larger numbers of threads or of a GPU are invalid."""


@functools.cache
def cores() -> int:
    """Number of cores that this process may use, read once."""
    return usable_cpus()


def default_threads() -> int:
    """Compute threads of a run that sets none: `OMP_NUM_THREADS`, else the cores that this process may use."""
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = int(value) if value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS else 0
    return threads or cores()


def probe_file() -> Path:
    """File of the measurements of `llf_core.models.device`."""
    return home() / "cache" / "probe.json"


@functools.cache
def probe_key(flags: str, threads: int) -> str:
    """Key of a measurement: CPU, instructions that torch uses (such as `AVX512`), torch's version, threads."""
    return f"{cpu_name()} | {flags} | torch {metadata.version('torch')} | {threads} threads"


def cached_speedup(threads: int) -> float | None:
    """Speedup of bfloat16 over float32 as a run has measured it on this CPU with this torch and as many threads."""
    try:
        begin, _, end = probe_key("\0", threads).partition("\0")
    except metadata.PackageNotFoundError:
        return None
    for key, value in read_object_or_empty(probe_file()).items():
        if key.startswith(begin) and key.endswith(end) and is_speedup(value):
            return float(value)
    return None


def is_speedup(value: object) -> TypeGuard[float]:
    """Whether a stored value is a plausible speedup."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MOST_SPEEDUP


FILE = Path(__file__).with_name("cards.toml")
MOST_CARDS = 1024

WITHOUT_BF16 = ("V100", "T4")
"""Cards older than Ampere."""

_PLACE = re.compile(
    r"(?:(?P<count>[0-9]{1,4}) *[x*\u00d7]? +)?(?P<name>.+?)(?:[ -]*(?P<size>[0-9]{1,3}) *gi?b)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Card:
    """A GPU; see `cards.toml` for units and sources.

    Attributes:
        name: as a part of the name that its driver reports.
        flops: dense operations a second in half precision.
        bandwidth: bytes a second of its memory.
        link: bytes a second in one direction to the other cards of its machine.
        network: bytes a second in one direction between machines, all ports of one together.
    """

    name: str
    size: int
    memory: int
    flops: float
    bandwidth: float
    link: float
    network: float
    machine: int


@cache
def cards() -> tuple[Card, ...]:
    """All cards of the table."""
    with FILE.open("rb") as file:
        return tuple(Card(**one) for one in tomllib.load(file)["cards"])


def card_of(device: Device) -> Card | None:
    """The card of a device by its name and memory; None if it is not in the table."""
    found = next((one.name for one in cards() if re.search(rf"\b{one.name}\b", device.name, re.IGNORECASE)), None)
    named = [one for one in cards() if one.name == found]
    return min(named, key=lambda one: abs((one.memory << 20) - device.total), default=None)


def cards_of_place(on: str) -> Device:
    """The cards of a text such as `8 x H100 80GB` or `H100`, as devices with all of their memory free.

    Raises:
        ConfigError: it names no known card, or more than `MOST_CARDS`.
    """
    found = _PLACE.fullmatch(on.strip())
    name = "" if found is None else _plain(found["name"])
    named = [one for one in cards() if name and name in {_plain(one.name), _plain(one.name).removeprefix("rtx")}]
    size = None if found is None else found["size"]
    sized = [one for one in named if size is None or one.size == int(size)]
    count = int(found["count"] or 1) if found else 0
    if not sized or not 1 <= count <= MOST_CARDS:
        known = ", ".join(dict.fromkeys(f"{one.name} {one.size}GB" for one in named or cards()))
        sentence = (
            f"Expected 1 to {MOST_CARDS:,} cards." if sized else f"Expected a text such as 8 x H100 80GB, of: {known}."
        )
        raise ConfigError((Problem("invalid", "on", on, f"`on` is {on!r}. {sentence}"),))
    card = sized[0]
    memory = card.memory << 20
    return Device("cuda", f"{card.name} {card.size}GB", memory, memory, card.name not in WITHOUT_BF16, count)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia").removesuffix("sxm")
