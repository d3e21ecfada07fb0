"""A merged model as files of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from llf_core.export.format import ExportFormat
from llf_core.export.request import ExportError, check_combination, check_dtype, check_quantizations, check_shards

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from llf_core.export.receipt import ReceiptCheck
    from llf_core.export.request import ExportRequest
    from llf_core.export.source import ExportSource


class MergedFormat(ExportFormat):
    """A whole model in safetensors, with tokenizer, chat template and generation config."""

    name: ClassVar[str] = "merged"
    label: ClassVar[str] = "Whole model"
    help: ClassVar[str] = "Merges the adapters into the weights; loads with transformers, vLLM and SGLang."
    reward_models: ClassVar[bool] = True
    readers: ClassVar[tuple[str, ...]] = ("transformers",)

    def check(self, request: ExportRequest) -> None:
        """Check dtype, shard size and combination, and that no rank or quantization is given."""
        check_dtype(request)
        check_shards(request)
        check_combination(request)
        check_quantizations(request)
        if request.rank is not None:
            raise ExportError(f"`rank` is {request.rank}, which only the format adapter has. Expected none.")

    def write(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[Path]:
        """Merge, round to the dtype once, and write the model with its tokenizer and a `Modelfile`."""
        import torch

        from llf_core.export.source import bytes_of_weights, check_room
        from llf_core.models.lazy_imports import no_progress_bars
        from llf_core.models.save_result import check_written, save_whole_model

        progress("Merging", 0, 0)
        model = source.merge(progress)
        dtype = getattr(torch, source.dtype())
        check_room(folder, bytes_of_weights(model, dtype.itemsize))
        cast_weights(model, dtype)
        progress("Writing the weights", 0, 0)
        with no_progress_bars():
            save_whole_model(model, folder, source.padding_source, max_shard_size=request.shard_bytes)
        source.save_tokenizer(folder)
        source.save_modelfile(folder, ".")
        check_written(model, folder, adapter=False)
        cast_weights(model, getattr(torch, source.compute_dtype))
        source.measure_written(progress)
        return sorted(folder.iterdir())

    def verify(
        self,
        source: ExportSource,
        folder: Path,
        request: ExportRequest,  # noqa: ARG002 - the same for all formats
        progress: Callable[[str, int, int], object],
    ) -> list[ReceiptCheck]:
        """Compare the files, as plain transformers reads them, with the live model."""
        from llf_core.export.gguf.program import steps_told
        from llf_core.export.plain_program import run_plain

        progress("Reading it back with transformers", 0, 0)
        found = run_plain(source, folder, step=steps_told(progress, "Reading it back with transformers"))
        checks = source.compare(found, source.dtype())
        return checks if source.merging is None else [source.merging, *checks]


def cast_weights(model: Any, dtype: torch.dtype) -> None:
    """Cast the floating-point parameters of a model, in place, to measure what a file of that dtype will hold.

    Buffers, such as frequencies of rotary embeddings, keep their dtype, as do parameters that the model's class keeps
    in float32.
    """
    kept = [*(getattr(model, "_keep_in_fp32_modules", None) or ())]
    kept += getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not any(part in name.split(".") for part in kept):
            parameter.data = parameter.data.to(dtype)
