from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.export.errors import ExportError
from llf_core.models.errors import first_line

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.export.source import ExportSource


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
