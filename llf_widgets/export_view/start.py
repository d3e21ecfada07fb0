"""`llf.export`: a view of an export in a notebook, the finished export elsewhere."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from llf_core.export.exports import export as export_and_wait
from llf_widgets.export_view.widget import ExportView
from llf_widgets.start import notebook_location

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.chat.target import Target
    from llf_core.export import Export
    from llf_core.launch import Run
    from llf_core.runs import RunFolder


def export(
    target: str | Path | Run | RunFolder | Target,
    format: str = "merged",  # noqa: A002 - the user's word
    **options: Any,
) -> ExportView | Export:
    """Export a model for other programs, and verify with another program that what was written works there.

    Args:
        target: what is exported: a run, its id, `RUN@STEP`, a folder of a model or adapter, or a hub id.
        format: name of the format, such as `merged` or `adapter`.
        options: `folder`, `dtype`, `quantizations` and the others of `llf_core.export.export`.

    Returns:
        In a notebook, at once, a view with the progress and then the receipt; `folder`, `receipt` and `wait()` wait for
        the end. Elsewhere the finished export, with `folder` and `receipt`. In a notebook only an unknown option is an
        error here; `wait` raises the others.

    Raises:
        ExportError: an option is not valid, the destination is not empty, or the model cannot be exported.
        FailedReceiptError: what was written differs from the model.
        PushError: the hub does not know the user or refuses the files; the export is then complete.
        TargetError: nothing has the target's name, or the run has no weights yet.
        ConfigError: the config of the run is no longer valid.
        UntrustedCodeError: Python code of the model would run, and the user has not allowed it.

    Example:
        >>> view = llf.export(run, format="merged", folder="my-model")
        >>> view                # shows it
        >>> view.receipt.passed
    """
    inspect.signature(export_and_wait).bind(target, format, **options)
    if notebook_location() is None:
        return export_and_wait(target, format, **options)
    return ExportView(target, format, **options)
