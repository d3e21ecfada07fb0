"""Data Worker: load → align → render → mask → truncate → pack → collate.

Imports torch, transformers and datasets only inside its functions.
"""

from llf_core.data.collate import Collator
from llf_core.data.errors import DataError
from llf_core.data.packed_dataset import PackedRows, check_packing
from llf_core.data.prepare import Prepared, dump_examples, prepare, template_of
from llf_core.data.report import DataReport

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
