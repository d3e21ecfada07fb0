"""Shell commands that install what is missing; LLF is installed from a folder or wheel, not from an index."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement


def install_command(extra: str) -> str:
    """`pip install` with the packages of an extra of LLF that are missing, or with all of them if none is."""
    requirements = [Requirement(line) for line in metadata.requires("llf") or ()]
    wanted = [one for one in requirements if one.marker and one.marker.evaluate({"extra": extra})]
    missing = [one for one in wanted if not _is_installed(one.name)]
    return " ".join(["pip install", *(f'"{one.name}{one.specifier}"' for one in missing or wanted)])


def llf_install_command() -> str:
    """`pip install` with the folder or wheel that LLF was installed from, for another environment of this machine."""
    record = json.loads(metadata.distribution("llf").read_text("direct_url.json") or "{}")
    url = str(record.get("url", ""))
    parts = urlsplit(url)
    return f"pip install {shlex.quote(unquote(parts.path) if parts.scheme == 'file' else url) if url else 'LLF_FOLDER'}"


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
