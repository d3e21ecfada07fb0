"""Exports of models in several formats, each with a receipt of what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from llf_core.export.exports import Export, export
    from llf_core.export.format import ExportFormat, find_format
    from llf_core.export.receipt import Receipt, ReceiptCheck, read_receipt
    from llf_core.export.request import ExportError, ExportRequest

__all__ = [
    "Export",
    "ExportError",
    "ExportFormat",
    "ExportRequest",
    "Receipt",
    "ReceiptCheck",
    "export",
    "find_format",
    "read_receipt",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Export": ".exports",
        "ExportError": ".request",
        "ExportFormat": ".format",
        "ExportRequest": ".request",
        "Receipt": ".receipt",
        "ReceiptCheck": ".receipt",
        "export": ".exports",
        "find_format": ".format",
        "read_receipt": ".receipt",
    },
)
