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
    """A copy of an environment that asks processes for no colors: escape sequences would be unreadable in `log.txt`.

    It has `NO_COLOR`, see https://no-color.org, and none of the variables that force colors.
    """
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
    """Apply `strip_bidi` to all strings of a JSON or YAML value, keys too, before a page displays them.

    Returns:
        A copy in which tuples are lists. Keys that are no strings, as YAML has them, stay.
    """
    if isinstance(value, dict):
        return {strip_bidi(key) if isinstance(key, str) else key: strip_bidi_nested(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [strip_bidi_nested(one) for one in value]
    return strip_bidi(value) if isinstance(value, str) else value
