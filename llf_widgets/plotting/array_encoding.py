"""Arrays of a figure as base64, so that its JSON is small and quick to read for plotly.js."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

DTYPES = {"f": np.dtype("<f4"), "i": np.dtype("<i4"), "u": np.dtype("<i4")}
"""Target dtype by kind of numpy array."""
NAMES = {np.dtype("<f4"): "f4", np.dtype("<i4"): "i4"}


def encode_arrays(value: object) -> Any:
    """Encode each array of a figure as `{"dtype": "f4" | "i4", "bdata": base64}`, plotly.js's format of typed arrays.

    Floats keep seven significant digits, up to 3.4e38; integers have to fit 32 bits, as steps do. NaN and infinities
    are preserved, unlike in JSON.
    """
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, dtype=DTYPES[value.dtype.kind])
        return {"dtype": NAMES[array.dtype], "bdata": base64.b64encode(array.tobytes()).decode("ascii")}
    if isinstance(value, dict):
        return {key: encode_arrays(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encode_arrays(inner) for inner in value]
    return value
