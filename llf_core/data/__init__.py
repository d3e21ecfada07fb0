"""Data Worker: load → align → render → mask → truncate → pack → collate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from llf_core.data.collate import Collator
    from llf_core.data.errors import DataError
    from llf_core.data.packing import PackedRows, check_packing
    from llf_core.data.preparation import Prepared, dump_examples, prepare, template_of
    from llf_core.data.report import DataReport

# Imported on first use: checks and forecasts make no batches and encode nothing.
_LAZY = {
    "Collator": ".collate",
    "DataError": ".errors",
    "DataReport": ".report",
    "PackedRows": ".packing",
    "Prepared": ".preparation",
    "check_packing": ".packing",
    "dump_examples": ".preparation",
    "prepare": ".preparation",
    "template_of": ".preparation",
}

__all__ = [
    "Collator",
    "DataError",
    "DataReport",
    "PackedRows",
    "Prepared",
    "check_packing",
    "dump_examples",
    "prepare",
    "template_of",
]

__getattr__ = lazy_exports(__name__, _LAZY)
