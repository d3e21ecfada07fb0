from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import did_you_mean
from llf_core.export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

UNQUANTIZED = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
"""Dtype of each unquantized type, the most exact in llama.cpp first."""
FILE_TYPES = {
    "Q8_0": 7, "Q6_K": 18, "Q5_K_M": 17, "Q5_K_S": 16, "Q5_1": 9, "Q5_0": 8, "Q4_K_M": 15, "Q4_K_S": 14, "Q4_1": 3,
    "Q4_0": 2, "IQ4_NL": 25, "IQ4_XS": 30, "Q3_K_L": 13, "Q3_K_M": 12, "Q3_K_S": 11, "Q2_K": 10,
}  # fmt: skip
"""`llama_ftype` (llama.h) of each quantization, the largest first, without those that need an importance matrix."""
DEFAULT = ("f16",)


def named_quantizations(names: Sequence[str]) -> tuple[str, ...]:
    """Quantizations as llama.cpp writes their names, each once; `DEFAULT` without names, which may be in any case.

    Raises:
        ExportError: there is no such quantization.
    """
    known = {one.upper(): one for one in (*UNQUANTIZED, *FILE_TYPES)}
    for name in names:
        if str(name).upper() not in known:
            meant = did_you_mean(str(name), list(known.values()))
            raise ExportError(f"`quantizations` names {name!r}.{meant} Expected {', '.join(known.values())}.")
    return tuple(dict.fromkeys(known[str(name).upper()] for name in names)) or DEFAULT


def base_type(quantizations: Sequence[str]) -> str:
    """The type of the file that the others are made from: the most exact unquantized one of them, or f16."""
    return next((one for one in UNQUANTIZED if one in quantizations), "f16")
