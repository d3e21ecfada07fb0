"""The chat template that belongs to a model, from the files of its folder, without loading a tokenizer."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from llf_core.untrusted import MODEL_SETTINGS_BYTES, UnreadableError, read_object_or_empty, read_text


def own_template_text(folder: Path) -> str | None:
    """Read the text of a model's own chat template, of several the one named `default`; None if there is none."""

    def real(name: str) -> Path:
        return Path(os.path.realpath(folder / name))  # the cache of a hub has links

    with suppress(UnreadableError, FileNotFoundError):
        return read_text(real("chat_template.jinja"), MODEL_SETTINGS_BYTES)
    for name in ("chat_template.json", "tokenizer_config.json"):
        written = read_object_or_empty(real(name), MODEL_SETTINGS_BYTES).get("chat_template")
        if isinstance(written, list):
            named = (one for one in written if isinstance(one, dict) and one.get("name") == "default")
            written = next(named, {}).get("template")
        if isinstance(written, str):
            return written
    return None
