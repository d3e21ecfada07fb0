"""Data Worker: load → align → render → mask → truncate → pack → collate.

Imports torch, transformers and datasets only inside its functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.data.errors import DataError
from llf_core.data.packed_dataset import PackedRows, check_packing
from llf_core.data.prepare import Prepared, dump_examples, prepare, template_of
from llf_core.data.report import DataReport
from llf_core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from llf_core.data.collate import Collator

# Imported on first use: checks and forecasts make no batches.
_LAZY = {"Collator": ".collate"}

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
