"""What kernel and server tell each other of LLF_HOME, to notice that they use two folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

from llf_core.runs import home


def home_hash() -> str:
    """SHA-256 (hex) of the resolved path of LLF_HOME: comparable, without telling the path."""
    return hashlib.sha256(str(home().resolve()).encode()).hexdigest()


def runs_label() -> str:
    """The runs folder for a person, the user's own folder as `~`: `~/.llf/runs`."""
    runs = home().resolve() / "runs"
    user = Path.home().resolve()
    return f"~/{runs.relative_to(user)}" if runs.is_relative_to(user) else str(runs)
