"""GGUF files for llama.cpp, Ollama and LM Studio."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llf_core.export.format import ExportFormat
from llf_core.export.formats.adapter import AdapterFormat
from llf_core.export.formats.merged import MergedFormat
from llf_core.export.gguf.program import UNQUANTIZED, base_type, named_quantizations
from llf_core.export.request import SHARD_BYTES, ExportError, check_combination, plain_name
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.export.receipt import ReceiptCheck
    from llf_core.export.request import ExportRequest
    from llf_core.export.source import ExportSource

MERGED = ".merged"


class GgufFormat(ExportFormat):
    """GGUF files of a merged model, with tokenizer, chat template and the tokens that end an answer."""

    name: ClassVar[str] = "gguf"
    label: ClassVar[str] = "GGUF"
    help: ClassVar[str] = "One file for llama.cpp, Ollama and LM Studio; quantized on request (Q8_0, Q4_K_M, …)."

    def __init__(self) -> None:
        self._rows: list[dict[str, object]] = []

    def check(self, request: ExportRequest) -> None:
        """Check the quantizations and the combination, that no rank or dtype is given, and for llama.cpp."""
        from llf_core.export.gguf.program import check_installed

        named_quantizations(request.quantizations)
        check_combination(request)
        if request.rank is not None:
            raise ExportError(f"`rank` is {request.rank}, which only the format adapter has. Expected none.")
        if request.dtype != "auto":
            raise ExportError(
                f"`dtype` is {request.dtype!r}. Expected none: quantizations say it, such as f16, bf16 or f32."
            )
        check_installed()

    def write(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[Path]:
        """Merge in place, convert by llama.cpp's converter, and quantize by llama.cpp.

        All quantizations are made from one file: the most exact unquantized one that was requested, or else f16.
        """
        from llf_core.export.gguf.converter import check_architecture, convert
        from llf_core.export.gguf.program import quantize

        wanted = named_quantizations(request.quantizations)
        base = base_type(wanted)
        check_architecture(source.model.config.architectures)
        changed = bool(request.adapters or source.merged_before)
        dtype = UNQUANTIZED[base] if changed or base == "f32" else "auto"
        source.request = replace(request, dtype=dtype, shard_bytes=SHARD_BYTES)  # of files that are removed again
        merged = folder / MERGED
        merged.mkdir()
        try:
            MergedFormat().write(source, merged, source.request, progress)
            total = 1 + sum(one not in UNQUANTIZED for one in wanted)
            progress(f"Converting to {base}", 0, total)
            name = model_name(request)
            exact = folder / model_file_name(request, base)
            own = source.base.folder / "tokenizer.model"
            spm = own if source.base.kind != "gguf" and own.is_file() else None
            stops = source.reference.stops
            convert(merged, exact, UNQUANTIZED[base], name=name, stops=stops, sentencepiece=spm)
            for other in wanted:
                if other in UNQUANTIZED and other != base:
                    target = folder / model_file_name(request, other)
                    convert(merged, target, UNQUANTIZED[other], name=name, stops=stops, sentencepiece=spm)
        finally:
            shutil.rmtree(merged, ignore_errors=True)
        for number, other in enumerate((one for one in wanted if one not in UNQUANTIZED), 1):
            progress(f"Quantizing to {other}", number, total)
            quantize(exact, folder / model_file_name(request, other), other, source.threads)
        source.save_modelfile(folder, f"./{model_file_name(request, wanted[0])}")
        return sorted(folder.iterdir())

    def verify(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[ReceiptCheck]:
        """Read the files back with llama.cpp, and with transformers too, see `measure_again`.

        The file that was converted is compared with the live model, and the others with it. It is removed if it was not
        requested.
        """
        from llf_core.export.gguf.program import steps_told
        from llf_core.export.gguf.receipt import check_base, job_of, measure, measure_again

        wanted = named_quantizations(request.quantizations)
        base = base_type(wanted)
        exact = folder / model_file_name(request, base)
        try:
            with tempfile.TemporaryDirectory(prefix=".logits-", dir=folder) as work:
                job = job_of(source, Path(work))
                what = "Reading it back with llama.cpp"
                progress(what, 0, 0)
                row, found = measure(
                    exact, job | {"logits": str(Path(work) / "logits.npz")}, steps_told(progress, what)
                )
                checks = check_base(source, found, base, Path(work) / "logits.npz")
                rows = {base: row}
                job |= {"answers": found["answers_of_questions"], "width": found["width"]}
                for other in (one for one in wanted if one != base):
                    progress(f"Measuring {other}", 0, 0)
                    told = steps_told(progress, f"Measuring {other}")
                    rows[other], _ = measure(folder / model_file_name(request, other), job, told)
                progress("Reading it back with transformers", 0, 0)
                files = {one: folder / model_file_name(request, one) for one in rows}
                checks += measure_again(files, rows, job, found["parameters"])
        finally:
            if base not in wanted:
                exact.unlink(missing_ok=True)
        self._rows = [{"quantization": one, **rows[one]} for one in wanted]
        return checks if source.merging is None else [source.merging, *checks]

    def table(self, checks: Sequence[ReceiptCheck]) -> list[dict[str, object]]:  # noqa: ARG002 - the rows were measured beside them
        """One row for each file, in the requested order; none before `verify`."""
        return self._rows


def model_name(request: ExportRequest) -> str:
    """The model's name in the names and metadata of files: letters, digits and `_.@-`."""
    return plain_name(request.target.name)


def model_file_name(request: ExportRequest, quantization: str) -> str:
    """Name of the file of a quantization."""
    return f"{model_name(request)}-{quantization}.gguf"


ADAPTER, BASE = ".adapter", ".base.gguf"
"""Files that are kept until the adapter has been read back."""


class GgufAdapterFormat(ExportFormat):
    """A LoRA as one GGUF file, to be applied to its base as GGUF."""

    name: ClassVar[str] = "gguf-adapter"
    label: ClassVar[str] = "GGUF adapter"
    help: ClassVar[str] = "A LoRA for llama.cpp and Ollama, megabytes, which they apply to its base as GGUF."

    def check(self, request: ExportRequest) -> None:
        """Check that there is one adapter, which GGUF can hold, and that llama.cpp is installed."""
        from llf_core.export.gguf.converter import check_lora
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
        from llf_core.export.gguf.converter import check_architecture, check_lora, convert, convert_lora

        architectures = source.model.config.architectures
        check_architecture(architectures)
        adapter, base = folder / ADAPTER, source.plain_base()
        adapter.mkdir()
        try:
            AdapterFormat().write(source, adapter, replace(request, format="adapter"), progress)
            check_lora(read_object_or_empty(adapter / "adapter_config.json"), request.target.name)
            progress("Converting the adapter", 0, 2)
            convert_lora(adapter, base, folder / adapter_file_name(request))
        finally:
            shutil.rmtree(adapter, ignore_errors=True)
        progress("Converting the base, to read the adapter back with it", 1, 2)
        stops = source.reference.stops
        convert(base, folder / BASE, "float32", name=model_name(request), stops=stops)
        source.save_modelfile(folder, f"./{base_name(source)}-f16.gguf", f"./{adapter_file_name(request)}")
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
                job = job_of(source, Path(work)) | {
                    "logits": str(logits),
                    "adapter": str(folder / adapter_file_name(request)),
                }
                _, found = measure(folder / BASE, job, steps_told(progress, "Reading it back with llama.cpp"))
                checks = check_base(source, found, "f32", logits)
        finally:
            (folder / BASE).unlink(missing_ok=True)
        return [one for one in checks if one.name != "chat template"]  # an adapter has none; the `Modelfile` has it


def adapter_file_name(request: ExportRequest) -> str:
    """Name of the file of the adapter."""
    return f"{model_name(request)}-lora.gguf"


def base_name(source: ExportSource) -> str:
    """Name of the base exported as GGUF, which `Modelfile` refers to."""
    return plain_name(source.base.name.rstrip("/").rpartition("/")[2])
