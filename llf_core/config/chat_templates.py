"""The chat templates that have a name, as `templates.toml` has them: how each turn of a conversation is written."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

TOOL_FORMATS = (
    "default", "gemma4", "glm4", "glm4_moe", "lfm2", "ling", "llama3", "minimax1", "minimax2", "mistral", "phi4_mini",
    "qwen", "qwen3_5", "seed_oss",
)  # fmt: skip
"""How functions are offered and called: the files of `data/templates/tools`."""
FILE = Path(__file__).with_name("templates.toml")


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Every name, aliases too, with its fields; what an entry leaves out is taken from the one that it is like."""
    with FILE.open("rb") as file:
        written = tomllib.load(file)

    def whole(entry: dict[str, Any]) -> dict[str, Any]:
        like = entry.get("like")
        base = {} if like is None else whole(written[like])
        return {key: value for key, value in (base | entry).items() if key not in {"like", "aliases"}}

    found: dict[str, dict[str, Any]] = {}
    for name, entry in written.items():
        found |= dict.fromkeys([name, *entry.get("aliases", ())], whole(entry))
    return found


@cache
def template_names() -> tuple[str, ...]:
    """The templates that can be named, sorted."""
    return tuple(sorted(entries()))
