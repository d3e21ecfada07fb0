"""plotly.js for the page, and compact JSON for figures."""

from __future__ import annotations

import base64
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"f": np.dtype("<f4"), "i": np.dtype("<i4"), "u": np.dtype("<i4")}
"""Target dtype by kind of numpy array."""
NAMES = {np.dtype("<f4"): "f4", np.dtype("<i4"): "i4"}


def packed(value: object) -> Any:
    """Encode each array of a figure as `{"dtype": "f4" | "i4", "bdata": base64}`, plotly.js's format.

    Floats keep seven significant digits. NaN and infinities are preserved, unlike in JSON.

    Args:
        value: dicts, lists, numbers, strings and one-dimensional numpy arrays.
    """
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, dtype=DTYPES[value.dtype.kind])
        return {"dtype": NAMES[array.dtype], "bdata": base64.b64encode(array.tobytes()).decode("ascii")}
    if isinstance(value, dict):
        return {key: packed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [packed(inner) for inner in value]
    return value


@cache
def plotly_module() -> str:
    """JavaScript that sets `globalThis.llfPlotly` to plotly.js, once per page for all views.

    The file is the one in the Python package `plotly` (MIT); the package is not imported.

    Raises:
        FileNotFoundError: `plotly` is not installed, or has no such file.
    """
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("plotly is not installed. Run: pip install plotly")
    path = Path(spec.submodule_search_locations[0], "package_data", "plotly.min.js")
    source = path.read_text(encoding="utf-8")
    return (
        "globalThis.llfPlotly ??= (() => { const module = { exports: {} }; let exports = module.exports, define;\n"
        f"{source}\nreturn module.exports; }})();"
    )
