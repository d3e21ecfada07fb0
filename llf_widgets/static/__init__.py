"""Front-end files of the notebook views: ES modules and stylesheets, read once per process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def text(*names: str) -> str:
    """The joined text of some front-end files, for a widget's `_esm` or `_css`.

    Args:
        names: files of this folder, joined in this order, for example `("llf.css", "monitor.css")`.

    Returns:
        One text. Parts are joined with a newline, so a stylesheet may extend the shared one.
    """
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)
