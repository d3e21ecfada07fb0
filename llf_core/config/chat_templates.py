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
FILE = Path(__file__).with_name("chat_templates.toml")


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Fields of every template in `chat_templates.toml` by its name or alias; `like` inherits those of another one.

    Cached, so the result is not to be changed.
    """
    with FILE.open("rb") as file:
        written = tomllib.load(file)

    def whole(entry: dict[str, Any]) -> dict[str, Any]:
        like = entry.get("like")
        base = {} if like is None else whole(written[like])
        return {key: value for key, value in (base | entry).items() if key not in {"like", "aliases"}}

    found: dict[str, dict[str, object]] = {}
    for name, entry in written.items():
        found |= dict.fromkeys([name, *entry.get("aliases", ())], whole(entry))
    return found


@cache
def template_names() -> tuple[str, ...]:
    """Names of all templates and their aliases, sorted: the choices of the key `template`."""
    return tuple(sorted(entries()))
