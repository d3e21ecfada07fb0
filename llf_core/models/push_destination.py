from __future__ import annotations

import re
from dataclasses import dataclass

from llf_core.user_error import UserError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
LEFT_OUT = ("llf_result.json",)
"""Files that mean something only on the machine that wrote them."""
MODELSCOPE = "modelscope:"


class PushError(UserError, ValueError):
    """A folder could not be pushed to the hub; it stays complete on the disk."""


@dataclass(frozen=True)
class Destination:
    """Where a folder is pushed to.

    Attributes:
        repo: hub id with its owner; on ModelScope, `MODELSCOPE` and the id.
        private: whether a new repository is private; None for the owner's default.
        revision: branch, made if missing; None for the default one.
    """

    repo: str
    private: bool | None = None
    revision: str | None = None
