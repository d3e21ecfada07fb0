"""An adapter as files of PEFT."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from llf_core.export.format import ExportFormat
from llf_core.export.request import ExportError, check_combination, check_dtype, check_quantizations
from llf_core.models.errors import first_line
from llf_core.models.model_folder import read_json_object

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llf_core.export.receipt import ReceiptCheck
    from llf_core.export.request import ExportRequest
    from llf_core.export.source import ExportSource


class AdapterFormat(ExportFormat):
    """An adapter of PEFT in safetensors, with tokenizer and chat template."""

    name: ClassVar[str] = "adapter"
    label: ClassVar[str] = "Adapter"
    help: ClassVar[str] = "Only what was trained: megabytes, which peft loads over the base."
    reward_models: ClassVar[bool] = True
    readers: ClassVar[tuple[str, ...]] = ("transformers", "peft")

    def check(self, request: ExportRequest) -> None:
        """Check dtype, combination and rank, and that there is an adapter and no quantization."""
        check_dtype(request)
        check_combination(request)
        check_quantizations(request)
        if not request.adapters:
            raise ExportError(f"{request.target.name} is a whole model and has no adapter. Expected the format merged.")
        if request.rank is not None and request.rank < 1:
            raise ExportError(f"`rank` is {request.rank}. Expected an integer of at least 1.")

    def write(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[Path]:
        """Write the adapter as it is, in another dtype, or as a LoRA of a rank, with generation config and tokenizer.

        In another dtype or rank, it replaces the adapter of the live model.
        """
        import torch

        from llf_core.export.source import check_room

        if source.merged_before:
            raise ExportError(
                f"The adapter was trained on {source.base.name} with {source.merged_before[0]} merged into it, and "
                "nobody else has that base. Expected the format merged."
            )
        model = source.model
        progress("Writing the adapter", 0, 0)
        trained = [one for name, one in model.named_parameters() if f".{model.active_adapter}" in name]
        check_room(folder, sum(map(_bytes, trained)))
        if request.rank is not None:
            save_as_lora(source, folder, request.rank)
            source.load_written(folder)
        else:
            _save(model, folder)
        if request.dtype != "auto":
            _cast_file(folder, getattr(torch, request.dtype))
            source.load_written(folder)
        if request.dtype != "auto" or request.rank is not None:
            source.measure_written(progress)
        _name_base(source, folder)
        source.save_generation_config(folder)
        source.save_tokenizer(folder)
        return sorted(folder.iterdir())

    def verify(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[ReceiptCheck]:
        """Compare the adapter over its base, as plain transformers and peft read them, with the live model."""
        from llf_core.export.gguf.program import steps_told
        from llf_core.export.plain_program import run_plain

        progress("Reading it back with transformers and peft", 0, 0)
        found = run_plain(
            source,
            folder,
            base=source.plain_base(),
            step=steps_told(progress, "Reading it back with transformers and peft"),
        )
        dtype = source.compute_dtype if request.dtype == "auto" else request.dtype
        return source.compare(found, dtype, lossy=request.rank is not None)


def _bytes(weight: Any) -> int:
    return int(weight.nbytes)


def _save(model: Any, folder: Path) -> None:
    """Write the active adapter into the folder itself, whatever its name in memory."""
    name = model.active_adapter
    model.save_pretrained(folder, save_embedding_layers=False, selected_adapters=[name])
    inside = folder / name
    if inside.is_dir():  # PEFT writes any adapter but `default` into a subfolder
        for path in inside.iterdir():
            path.rename(folder / path.name)
        inside.rmdir()


def _cast_file(folder: Path, dtype: object) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = {name: one.to(dtype) if one.is_floating_point() else one for name, one in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _name_base(source: ExportSource, folder: Path) -> None:
    """Write the base's name, by which peft finds it, and whether it is a classifier's."""
    path = folder / "adapter_config.json"
    values = read_json_object(path)
    values["base_model_name_or_path"] = source.base.portable_name or source.base.name
    if source.classifier_arguments is not None:
        values["task_type"] = "SEQ_CLS"
    values["revision"] = source.base.revision if source.base.kind == "hub" else None
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def save_as_lora(source: ExportSource, folder: Path, rank: int) -> None:
    """Write the active adapter as a LoRA, by PEFT: the nearest product of that rank for each matrix (by its SVD).

    Raises:
        ExportError: PEFT cannot convert this type of adapter.
    """
    import peft

    model = source.model
    kind = model.active_peft_config.peft_type.value
    try:
        peft.save_as_lora(folder, model, rank=rank, adapter_name=model.active_adapter)
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        raise ExportError(
            f"PEFT {peft.__version__} cannot convert an adapter of type {kind} to a LoRA: {first_line(error)} Expected "
            "the format adapter without rank, or merged."
        ) from error
