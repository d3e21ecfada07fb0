from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llf_core.export.errors import ExportError
from llf_core.export.format import ExportFormat
from llf_core.export.formats.adapter import AdapterFormat
from llf_core.export.formats.gguf import model_name
from llf_core.export.options import check_combination
from llf_core.export.request import plain_name
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.export.receipt import ReceiptCheck
    from llf_core.export.request import ExportRequest
    from llf_core.export.source import ExportSource

ADAPTER, BASE = ".adapter", ".base.gguf"
"""Files that are kept until the adapter has been read back."""


class GgufAdapterFormat(ExportFormat):
    """A LoRA as one GGUF file, to be applied to its base as GGUF."""

    name: ClassVar[str] = "gguf-adapter"
    label: ClassVar[str] = "GGUF adapter"
    help: ClassVar[str] = "A LoRA for llama.cpp and Ollama, megabytes, which they apply to its base as GGUF."

    def check(self, request: ExportRequest) -> None:
        """Check that there is one adapter, which GGUF can hold, and that llama.cpp is installed."""
        from llf_core.export.gguf.lora_converter import check_lora
        from llf_core.export.gguf.program import check_installed

        if len(request.adapters) != 1:
            raise ExportError(
                f"{request.target.name} has {len(request.adapters)} adapters. Expected one, or the format gguf."
            )
        if request.quantizations or request.dtype != "auto" or request.rank is not None:
            raise ExportError("A GGUF adapter is float32 and keeps its rank. Expected no quantizations, dtype or rank.")
        check_combination(request)
        (adapter,) = request.adapters
        settings = read_object_or_empty(Path(adapter.adapter) / "adapter_config.json")
        if settings:  # that of a hub is checked when it is there
            check_lora(settings, adapter.name or adapter.adapter)
        check_installed()

    def write(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[Path]:
        """Convert the adapter, and its base, which is kept until `verify`."""
        from llf_core.export.gguf.converter import check_architecture, convert
        from llf_core.export.gguf.lora_converter import check_lora, convert_lora

        architectures = source.model.config.architectures
        check_architecture(architectures)
        adapter, base = folder / ADAPTER, source.plain_base()
        adapter.mkdir()
        try:
            AdapterFormat().write(source, adapter, replace(request, format="adapter"), progress)
            check_lora(read_object_or_empty(adapter / "adapter_config.json"), request.target.name)
            progress("Converting the adapter", 0, 2)
            convert_lora(adapter, base, folder / file_name(request))
        finally:
            shutil.rmtree(adapter, ignore_errors=True)
        progress("Converting the base, to read the adapter back with it", 1, 2)
        stops = source.reference.stops
        convert(base, folder / BASE, "float32", name=model_name(request), stops=stops)
        source.save_modelfile(folder, f"./{base_name(source)}-f16.gguf", f"./{file_name(request)}")
        return sorted(folder.iterdir())

    def verify(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[ReceiptCheck]:
        """Apply the adapter to its base in llama.cpp, compare both with the live model, and remove the base."""
        from llf_core.export.gguf.program import steps_told
        from llf_core.export.gguf.receipt import check_base, job_of, measure

        progress("Reading it back with llama.cpp", 0, 0)
        try:
            with tempfile.TemporaryDirectory(prefix=".logits-", dir=folder) as work:
                logits = Path(work) / "logits.npz"
                job = job_of(source, Path(work)) | {"logits": str(logits), "adapter": str(folder / file_name(request))}
                _, found = measure(folder / BASE, job, steps_told(progress, "Reading it back with llama.cpp"))
                checks = check_base(source, found, "f32", logits)
        finally:
            (folder / BASE).unlink(missing_ok=True)
        return [one for one in checks if one.name != "chat template"]  # an adapter has none; the `Modelfile` has it


def file_name(request: ExportRequest) -> str:
    """Name of the file of the adapter."""
    return f"{model_name(request)}-lora.gguf"


def base_name(source: ExportSource) -> str:
    """Name of the base exported as GGUF, which `Modelfile` refers to."""
    return plain_name(source.base.name.rstrip("/").rpartition("/")[2])
