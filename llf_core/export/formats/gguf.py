"""GGUF files for llama.cpp, Ollama and LM Studio."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llf_core.export.errors import ExportError
from llf_core.export.format import ExportFormat
from llf_core.export.formats.merged import MergedFormat
from llf_core.export.gguf.quantizations import UNQUANTIZED, base_type, named_quantizations
from llf_core.export.options import check_combination
from llf_core.export.request import SHARD_BYTES, plain_name

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
            exact = folder / file_name(request, base)
            own = source.base.folder / "tokenizer.model"
            spm = own if source.base.kind != "gguf" and own.is_file() else None
            stops = source.reference.stops
            convert(merged, exact, UNQUANTIZED[base], name=name, stops=stops, sentencepiece=spm)
            for other in wanted:
                if other in UNQUANTIZED and other != base:
                    target = folder / file_name(request, other)
                    convert(merged, target, UNQUANTIZED[other], name=name, stops=stops, sentencepiece=spm)
        finally:
            shutil.rmtree(merged, ignore_errors=True)
        for number, other in enumerate((one for one in wanted if one not in UNQUANTIZED), 1):
            progress(f"Quantizing to {other}", number, total)
            quantize(exact, folder / file_name(request, other), other, source.threads)
        source.save_modelfile(folder, f"./{file_name(request, wanted[0])}")
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
        exact = folder / file_name(request, base)
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
                    rows[other], _ = measure(folder / file_name(request, other), job, told)
                progress("Reading it back with transformers", 0, 0)
                files = {one: folder / file_name(request, one) for one in rows}
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


def file_name(request: ExportRequest, quantization: str) -> str:
    """Name of the file of a quantization."""
    return f"{model_name(request)}-{quantization}.gguf"
