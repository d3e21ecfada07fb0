from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs import home
from llf_core.runs.trust import allow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def allow_code(code: Iterable[Mapping[str, Any]]) -> str:
    """Record in `LLF_HOME` that the user allows code as displayed; returns why that failed, or an empty text.

    Args:
        code: entries as returned by `llf_core.runs.foreign_code.ForeignCode.json`, each with `folder` and `sha256`.
    """
    try:
        for one in code:
            allow(Path(one["folder"]), str(one["sha256"]), home())
    except OSError as error:
        return str(error)
    return ""
