"""What a view does with the code that it has shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs import home
from llf_core.runs.trust import allow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def allow_shown(code: Iterable[Mapping[str, Any]]) -> str:
    """Remembers that the reader allows code as it was shown; where it has changed since, views ask again.

    Args:
        code: as `llf_core.runs.foreign_code.ForeignCode.json` makes it.

    Returns:
        Why it cannot be remembered; empty where it is.
    """
    try:
        for one in code:
            allow(Path(one["folder"]), str(one["sha256"]), home())
    except OSError as error:
        return str(error)
    return ""
