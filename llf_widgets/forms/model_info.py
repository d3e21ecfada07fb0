"""What can be said of a model without loading it: parameters, size and licence."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

_MAX_HEADER = 100_000_000
_LENGTH = struct.Struct("<Q")
_LICENSE = re.compile(r"\A---\n.*?^license:[ \t]*(\S[^\n]*)$", re.DOTALL | re.MULTILINE)


def describe(name: str) -> tuple[str, ...]:
    """Two or three short lines about a model; none where nothing is known without asking a hub.

    Args:
        name: the embedded model's name, or a folder with `config.json` and safetensors files.
    """
    from llf_core.config.model import EMBEDDED

    if name == EMBEDDED:
        return ("134.5 M parameters", "0.27 GB in bf16", "Apache-2.0")
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        return ()
    files = sorted(folder.glob("*.safetensors"))
    lines = []
    parameters = sum(_parameters(file) for file in files)
    if parameters:
        size = sum(file.stat().st_size for file in files)
        lines += [f"{count(parameters)} parameters", f"{size / 1e9:.2f} GB on disk"]
    license_name = _license(folder / "README.md")
    if license_name:
        lines.append(license_name)
    return tuple(lines)


def count(parameters: int) -> str:
    """A number of parameters in words: `134.5 M`, `7.62 B`, `960`."""
    if parameters >= 10**9:
        return f"{parameters / 1e9:.2f} B"
    if parameters >= 10**6:
        return f"{parameters / 1e6:.1f} M"
    return f"{parameters:,}"


def _parameters(file: Path) -> int:
    """Elements of all tensors of a safetensors file, from its header; 0 where it has none that can be read."""
    with file.open("rb") as stream:
        start = stream.read(_LENGTH.size)
        if len(start) < _LENGTH.size:
            return 0
        length = _LENGTH.unpack(start)[0]
        if length > _MAX_HEADER:
            return 0
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError:
            return 0
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _license(card: Path) -> str:
    if not card.is_file():
        return ""
    found = _LICENSE.search(card.read_text(encoding="utf-8", errors="replace")[:10_000])
    return found.group(1).strip("'\" ")[:40] if found else ""
