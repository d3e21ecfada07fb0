"""Quantized models that transformers loads: int8 by torchao, 4 bits by torchao or auto-round."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from llf_core.export.format import ExportFormat
from llf_core.export.formats.merged import MergedFormat
from llf_core.export.request import ExportError, check_combination, check_dtype, check_quantizations, check_shards
from llf_core.install_command import install_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llf_core.export.receipt import ReceiptCheck
    from llf_core.export.request import ExportRequest
    from llf_core.export.source import ExportSource

MERGED = ".merged"
MODULE = "llf_core.export.quantize_process"


class QuantizedFormat(ExportFormat):
    """A merged model, quantized in a process of its own, with tokenizer and chat template.

    Attributes:
        kl_limit: largest mean KL divergence in nats from the live model, chosen by hand to find files that are broken.
    """

    packages: ClassVar[tuple[str, ...]]
    kl_limit: ClassVar[float]
    keeps_dtype: ClassVar[bool] = True

    def __init__(self) -> None:
        self._rows: list[dict[str, object]] = []

    @abstractmethod
    def check_machine(self) -> None:
        """Check that this machine can write the files and read them back."""

    def check(self, request: ExportRequest) -> None:
        """Check the options, and by `check_machine` and `packages` that the files can be written and read back here."""
        check_dtype(request)
        check_shards(request)
        check_combination(request)
        check_quantizations(request)
        if request.rank is not None:
            raise ExportError(f"`rank` is {request.rank}, which only the format adapter has. Expected none.")
        missing = [one for one in self.packages if find_spec(one) is None]
        if missing:
            raise ExportError(
                f"The format {self.name} needs {missing[0].replace('_', '-')}, which is not installed.",
                f"Run {install_command('quantize')}, then export again.",
            )
        self.check_machine()

    def write(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[Path]:
        """Merge, and quantize the merged model."""
        from llf_core.export.gguf.program import run

        merged, made = folder / MERGED, folder / ".quantized"
        merged.mkdir()
        try:
            MergedFormat().write(source, merged, request, progress)
            source.release()
            progress(f"Quantizing to {self.name}", 0, 0)
            job = {"format": self.name, "folder": str(merged), "target": str(made), "threads": source.threads}
            job |= {"shard_bytes": request.shard_bytes}
            run(MODULE, job | {"loader": source.loader, "trust": source.trusts_code()}, f"quantized to {self.name}")
            for path in sorted(made.iterdir()):
                path.replace(folder / path.name)
            for path in merged.iterdir():
                if not (folder / path.name).exists() and not path.name.startswith("model"):
                    path.replace(folder / path.name)
        finally:
            shutil.rmtree(merged, ignore_errors=True)
            shutil.rmtree(made, ignore_errors=True)
        return sorted(folder.iterdir())

    def verify(
        self,
        source: ExportSource,
        folder: Path,
        request: ExportRequest,  # noqa: ARG002 - the same for all formats
        progress: Callable[[str, int, int], object],
    ) -> list[ReceiptCheck]:
        """Compare the files, as plain transformers reads them, with the live model.

        A quantization changes logits and answers: only the KL divergence has a limit, `kl_limit`. Keeps the row of
        `table`.
        """
        from llf_core.export.compare import changed_tokens, compare_all
        from llf_core.export.gguf.program import steps_told
        from llf_core.export.plain_program import run_plain

        progress("Reading it back with transformers", 0, 0)
        found = run_plain(source, folder, step=steps_told(progress, "Reading it back with transformers"))
        checks = compare_all(
            source.reference, found, compute_dtype=source.compute_dtype, dtype=source.dtype(), lossy=True
        )
        kept = []
        for one in checks:
            if one.name == "KL divergence" and isinstance(one.measured, float):
                kept.append(replace(one, passed=one.measured <= self.kl_limit, limit=self.kl_limit, detail=""))
                size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
                changed = changed_tokens(source.reference, found.logits)
                row = {"quantization": self.name, "bytes": size, "kl": one.measured, "changed_greedy": changed}
                self._rows = [row]
            elif one.name != "logits":
                kept.append(one)
        return kept if source.merging is None else [source.merging, *kept]

    def table(self, checks: Sequence[ReceiptCheck]) -> list[dict[str, object]]:  # noqa: ARG002 - measured beside them
        """One row: size, KL divergence and changed greedy tokens; none where the files could not be read back."""
        return self._rows


class Int8Format(QuantizedFormat):
    """Weights in 8 bits with a scale for each row, by torchao."""

    name: ClassVar[str] = "int8"
    label: ClassVar[str] = "int8 (torchao)"
    help: ClassVar[str] = "A whole model with weights in 8 bits; loads with transformers where torchao is installed."
    packages: ClassVar[tuple[str, ...]] = ("torchao",)
    readers: ClassVar[tuple[str, ...]] = ("transformers", "torchao")
    kl_limit: ClassVar[float] = 0.2

    def check_machine(self) -> None:
        """Accept any machine."""


class Int4Format(QuantizedFormat):
    """Weights in 4 bits with a scale for each 128 values of a row, by torchao."""

    name: ClassVar[str] = "int4"
    label: ClassVar[str] = "int4 (torchao)"
    help: ClassVar[str] = "A whole model with weights in 4 bits for an NVIDIA GPU."
    packages: ClassVar[tuple[str, ...]] = ("torchao",)
    readers: ClassVar[tuple[str, ...]] = ("transformers", "torchao", "mslk")
    kl_limit: ClassVar[float] = 2.0

    def check_machine(self) -> None:
        """Check for an NVIDIA GPU and the package mslk, whose kernels torchao 0.18 needs to pack 4 bits."""
        from llf_core.estimate.devices import find_devices

        lacks = "mslk is not installed" if find_spec("mslk") is None else "there is no such GPU"
        if find_spec("mslk") is None or not any(one.kind == "cuda" for one in find_devices()):
            raise ExportError(
                f"torchao packs weights in 4 bits only with an NVIDIA GPU and its package mslk, and {lacks}.",
                "Export the format gptq or gguf with Q4_K_M instead, which need no GPU.",
            )


class GptqFormat(QuantizedFormat):
    """Weights in 4 bits in GPTQ's layout, rounded to nearest in groups of 128 by auto-round; of 32 if rows need it."""

    name: ClassVar[str] = "gptq"
    label: ClassVar[str] = "GPTQ"
    help: ClassVar[str] = "A whole model in 4 bits for vLLM, SGLang and transformers."
    packages: ClassVar[tuple[str, ...]] = ("auto_round",)
    readers: ClassVar[tuple[str, ...]] = ("transformers", "auto-round")
    kl_limit: ClassVar[float] = 2.0

    def check_machine(self) -> None:
        """Accept any machine."""


class AwqFormat(QuantizedFormat):
    """Weights in 4 bits in AWQ's layout, rounded to nearest in groups of 128 by auto-round; of 32 if rows need it."""

    name: ClassVar[str] = "awq"
    label: ClassVar[str] = "AWQ"
    help: ClassVar[str] = "A whole model in 4 bits for vLLM, SGLang and transformers; needs gptqmodel to be read back."
    packages: ClassVar[tuple[str, ...]] = ("auto_round",)
    readers: ClassVar[tuple[str, ...]] = ("transformers", "gptqmodel")
    kl_limit: ClassVar[float] = 2.0

    def check_machine(self) -> None:
        """Check for the package gptqmodel, without which transformers cannot read AWQ's layout."""
        if find_spec("gptqmodel") is None:
            raise ExportError(
                "transformers reads AWQ's layout only with gptqmodel, which is not installed, so nothing could be "
                "verified.",
                "Run pip install gptqmodel, or export the format gptq, which needs no further package.",
            )
