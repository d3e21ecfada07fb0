"""Removes terminal colors and bidirectional controls from text that is shown in pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llf_core.untrusted import BIDI_CONTROLS

if TYPE_CHECKING:
    from collections.abc import Mapping

COLOR_VARIABLES = ("FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Environment variables that force colors without a terminal. Jupyter kernels set some of them."""
# CSI sequences (colors, cursor), OSC sequences (links, titles) up to the end of their line, and short escapes
# (`ESC ( B` of `tput sgr0`, `ESC 7`), as ECMA-35 has them.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]+[0-~]|[0-Z\\-~])")


def plain_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Copy an environment without variables that force colors, and with `NO_COLOR` (https://no-color.org)."""
    return {key: value for key, value in base.items() if key not in COLOR_VARIABLES} | {"NO_COLOR": "1"}


def without_escapes(text: str) -> str:
    """Remove escape sequences (colors, cursor movements, links) from text that a page displays."""
    return ESCAPES.sub("", text)


def strip_bidi(text: str) -> str:
    """Remove bidirectional control characters, which would reverse the text around a name.

    Text in a right-to-left script is displayed in order without them, by the Unicode Bidirectional Algorithm (UAX #9).
    """
    return text if text.isascii() else BIDI_CONTROLS.sub("", text)


def strip_bidi_nested(value: object) -> Any:
    """Copy a JSON or YAML value with `strip_bidi` applied to all strings, keys too, and tuples as lists."""
    if isinstance(value, dict):
        return {strip_bidi(key) if isinstance(key, str) else key: strip_bidi_nested(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [strip_bidi_nested(one) for one in value]
    return strip_bidi(value) if isinstance(value, str) else value
