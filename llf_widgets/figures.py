"""What a chart in the page needs from Python: plotly.js itself, and figures as small JSON."""

from __future__ import annotations

import base64
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"f": np.dtype("<f4"), "i": np.dtype("<i4"), "u": np.dtype("<i4")}
"""By the kind of a numpy array, what the page reads it as."""
NAMES = {np.dtype("<f4"): "f4", np.dtype("<i4"): "i4"}


def packed(value: Any) -> Any:
    """A figure with each array as `{"dtype": "f4" | "i4", "bdata": base64}`, as plotly.js names it; the rest as it is.

    A float has seven significant digits then. NaN and infinities survive, which they do not in JSON.

    Args:
        value: dicts, lists, numbers, texts and numpy arrays of one dimension.
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
    """JavaScript that sets `globalThis.llfPlotly` to plotly.js, once a page however many views carry it.

    The file is the one that the Python package `plotly` ships (MIT); the package itself is not imported.

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
