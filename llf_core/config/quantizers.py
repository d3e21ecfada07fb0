"""The quantizers, by LLaMA-Factory's `quantization_method`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECOND_MODELS = ("ref_model_quantization_bit", "reward_model_quantization_bit", "teacher_model_quantization_bit")
"""Keys that quantize a frozen second model, always with bitsandbytes."""


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """A way to store frozen weights in few bits.

    Attributes:
        name: value of `quantization_method`.
        paper: `arXiv …`; may be empty.
        modules: packages that it imports, as Python calls them; by the name that pip calls them.
        packed: bytes of a weight without `scales`, by `quantization_bit`; empty if LLF only loads stored weights.
        scales: values of the unquantized dtype for each weight, by bits: scales and zero points of a group.
        types: values of `quantization_type` that it has beside its usual one, each with the bits that it is for.
        adapters: PEFT's types of the adapters that can be trained over it, where PEFT's source does not say so
            (`llf_core.config.peft_tuners.supports`).
        stored: values of `quant_method` in the `config.json` of models whose weights it has stored.
        unpacks: whether a model that is stored so gets ordinary weights when it is loaded.
        slowdown: rough factor on the time of a step, by bits; empty where it was not measured. Those of bitsandbytes
            are of whole steps (`benchmarks.estimate_times`); the others were measured once on a CPU, as forward and
            backward pass of 256 tokens through a frozen layer of 1024 x 2816 in float32.
    """

    name: str
    label: str
    summary: str
    paper: str = ""
    modules: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    packed: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    scales: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    types: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    needs_cuda: bool = False
    adapters: frozenset[str] = frozenset()
    stored: tuple[str, ...] = ()
    unpacks: bool = False
    slowdown: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def bits(self) -> tuple[int, ...]:
        """Values of `quantization_bit` that it has, ascending; empty if it only loads stored weights."""
        return tuple(sorted(self.packed))

    @property
    def usual_bits(self) -> int | None:
        """The bits that a form suggests: 4 if it has them, else its most; None if it only loads stored weights."""
        return 4 if 4 in self.packed else max(self.packed, default=None)  # noqa: PLR2004 - bits

    def bytes_per_weight(self, bits: int, width: int) -> float:
        """Bytes of a quantized weight with its share of the scales: `packed + scales * width`.

        From the storage formats of the libraries; of bitsandbytes in 4 bits, double quantization (arXiv 2305.14314,
        section 3).

        Args:
            width: bytes of an unquantized weight, which scales have too.
        """
        return self.packed[bits] + self.scales.get(bits, 0.0) * width

    def scale_bytes(self, bits: int, weights: int) -> int:
        """Bytes of the scales of so many weights that `packed` has beside the bits."""
        return int((self.packed[bits] - bits / 8) * weights)

    def run_name(self, bits: int) -> str:
        """Its part in the keys of past runs: `4-bit`, or `3-bit hqq` if not by bitsandbytes."""
        return f"{bits}-bit" if self.name == "bnb" else f"{bits}-bit {self.name}"

    def missing_packages(self) -> list[str]:
        """Packages that cannot be imported, as pip calls them."""
        return [name for name, module in self.modules.items() if not _is_installed(module)]

    def install_command(self) -> str:
        """The command that installs the missing packages; empty if there are none."""
        missing = self.missing_packages()
        return f"pip install {' '.join(missing)}" if missing else ""


HQQ_GROUP = 64
"""Weights that share a scale and a zero point in HQQ, its library's default. In 3 bits they are seven int32, with ten
weights each; 5 and 6 bits are stored in bytes."""
QUANTO_GROUP = 128
"""The same in quanto, for 4 and 2 bits."""

QUANTIZERS: Mapping[str, Quantizer] = MappingProxyType(
    {
        one.name: one
        for one in (
            Quantizer(
                name="bnb",
                label="bitsandbytes",
                summary="NF4 or FP4 in 4 bits (QLoRA), or LLM.int8() in 8 bits.",
                paper="arXiv 2305.14314",
                modules={"bitsandbytes": "bitsandbytes"},
                packed={4: 0.52, 8: 1.0},  # with their scales, which are quantized too
                types={"nf4": 4, "fp4": 4},
                stored=("bitsandbytes",),
                slowdown={4: 1.5, 8: 1.9},
            ),
            Quantizer(
                name="hqq",
                label="HQQ",
                summary="Half-quadratic quantization: no data, 1 to 8 bits. The model is loaded in 16 bits first.",
                modules={"hqq": "hqq"},
                packed={1: 1 / 8, 2: 1 / 4, 3: 7 * 4 / HQQ_GROUP, 4: 1 / 2, 5: 1.0, 6: 1.0, 8: 1.0},
                scales=dict.fromkeys((1, 2, 3, 4, 5, 6, 8), 2 / HQQ_GROUP),
                stored=("hqq",),
                slowdown=dict.fromkeys((1, 2, 3, 4, 5, 6, 8), 2.8),
            ),
            Quantizer(
                name="torchao",
                label="torchao",
                summary="Integers or float8 in 8 bits, with one scale for each row.",
                modules={"torchao": "torchao"},
                packed={8: 1.0},
                types={"float8": 8},
                stored=("torchao",),
                slowdown={8: 1.3},
            ),
            Quantizer(
                name="quanto",
                label="quanto",
                summary="Integers in 8, 4 or 2 bits, or float8. On a CPU, 4 and 2 bits need a C++ compiler.",
                modules={"optimum-quanto": "optimum.quanto"},
                packed={2: 1 / 4, 4: 1 / 2, 8: 1.0},
                scales=dict.fromkeys((2, 4), 2 / QUANTO_GROUP),
                types={"float8": 8},
                adapters=frozenset({"LORA"}),
                stored=("quanto",),
                slowdown={2: 2.6, 4: 2.6, 8: 1.5},
            ),
            Quantizer(
                name="eetq",
                label="EETQ",
                summary="Integers in 8 bits, on NVIDIA GPUs; its kernels are downloaded from the hub.",
                modules={"kernels": "kernels"},
                packed={8: 1.0},
                needs_cuda=True,
                stored=("eetq",),
            ),
            Quantizer(
                name="gptq",
                label="GPTQ",
                summary="Models that GPTQ has quantized with data.",
                paper="arXiv 2210.17323",
                modules={"gptqmodel": "gptqmodel", "optimum": "optimum"},
                stored=("gptq",),
            ),
            Quantizer(
                name="awq",
                label="AWQ",
                summary="Models that AWQ has quantized with data.",
                paper="arXiv 2306.00978",
                modules={"gptqmodel": "gptqmodel"},
                stored=("awq",),
            ),
            Quantizer(
                name="aqlm",
                label="AQLM",
                summary="Models in 2 bits, as sums of vectors from codebooks.",
                paper="arXiv 2401.06118",
                modules={"aqlm[gpu,cpu]": "aqlm"},
                stored=("aqlm",),
            ),
            Quantizer(
                name="mxfp4",
                label="MXFP4",
                summary="Models whose experts are stored in 4-bit floats, such as gpt-oss; unpacked when loaded.",
                paper="arXiv 2310.10537",
                stored=("mxfp4",),
                unpacks=True,
            ),
            Quantizer(
                name="fp8",
                label="FP8",
                summary="Models in 8-bit floats with scales for blocks, such as DeepSeek-V3; unpacked when loaded.",
                paper="arXiv 2412.19437",
                stored=("fp8",),
                unpacks=True,
            ),
        )
    }
)
"""Those that quantize while a model is loaded, then those of stored models."""
FORMATS = ("nf4", "fp4", "float8")
"""Values of `quantization_type`."""


def stored_quantizer(method: object) -> Quantizer | None:
    """Find the quantizer by `quant_method` of the `quantization_config` in a model's `config.json`."""
    return next((one for one in QUANTIZERS.values() if method in one.stored), None)


def on_the_fly() -> Iterator[Quantizer]:
    """The quantizers that quantize an ordinary model while it is loaded."""
    return (one for one in QUANTIZERS.values() if one.bits)


def has_cuda() -> bool:
    """Whether this machine has the driver of an NVIDIA GPU, without loading torch."""
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def _is_installed(module: str) -> bool:
    """Whether a module is there; the packages around it are imported, and one that fails counts as missing."""
    try:
        return find_spec(module) is not None
    except ImportError:
        return False
