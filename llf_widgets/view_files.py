"""The built front ends: one script and one stylesheet for each view from `labextension/widgets/`; their MIME type."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parent / "static"


def script(view: str) -> Path | str:
    """The ES module of a view (a folder in `labextension/widgets`), for `_esm`; if not built, a module that says so."""
    path = FOLDER / f"{view}.js"
    return path if path.is_file() else _not_built(path)


def stylesheet(view: str) -> Path | str:
    """The stylesheet of a view, for a widget's `_css`; empty if it is not built."""
    path = FOLDER / f"{view}.css"
    return path if path.is_file() else ""


def text(file: Path | str) -> str:
    """The content of what `script` or `stylesheet` returned, read now, so that a rebuilt file needs no server restart.

    It is for `_esm` too: of a path, anywidget would keep every instance for as long as the class.
    """
    return file if isinstance(file, str) else file.read_text(encoding="utf-8")


def _not_built(path: Path) -> str:
    """A module that shows one sentence; a form, which has several widgets, shows it in the first of them."""
    sentence = (
        f"LLF's notebook views are not built: llf_widgets/static/{path.name} does not exist. "
        "Run `make install` in the source tree (it needs Node 20 or newer), then restart the kernel and reload the "
        "page."
    )
    return (
        "export default { render({ model, el }) {\n"
        "  if ([undefined, 'presets'].includes(model?.get('_component'))) "
        f"el.textContent = {json.dumps(sentence)};\n"
        "} };\n"
    )


VIEW_MIME_TYPE = "application/vnd.llf.view+json"
"""Type of `{"view": "monitor", "run", "home", "state", "step"}`, or `{"view": name}` of a view that needs its kernel.

LLF's renderer prefers it to the widget, so that a notebook without a kernel shows the bundle's `text/html`, not an
error.
"""
