"""Text without a terminal's colours: what other processes write is shown in pages, which do not know them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llf_core.door import BIDI_CONTROLS

if TYPE_CHECKING:
    from collections.abc import Mapping

FORCED = ("FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Variables by which a process takes a file or pipe for a terminal. A Jupyter kernel sets some for what it starts."""
# CSI sequences (colours, the cursor), OSC ones up to their end (links, titles), and other escapes of one letter.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


def plain_environment(base: Mapping[str, str]) -> dict[str, str]:
    """An environment whose processes write no colours."""
    return {key: value for key, value in base.items() if key not in FORCED} | {"NO_COLOR": "1"}


def without_escapes(text: str) -> str:
    """A text without escape sequences."""
    return ESCAPES.sub("", text)


def one_way(text: str) -> str:
    """A text without the signs that turn what follows: a name would mirror the words around it.

    Letters that are written from right to left need none of them.
    """
    return text if text.isascii() else BIDI_CONTROLS.sub("", text)


def all_one_way(value: Any) -> Any:
    """A value of JSON whose texts and names are all as `one_way` leaves them."""
    if isinstance(value, dict):
        return {one_way(key): all_one_way(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [all_one_way(one) for one in value]
    return one_way(value) if isinstance(value, str) else value
