"""bitsandbytes without the libraries for other versions of CUDA and for other cards: a tenth of its wheel."""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LIBRARY = re.compile(r"bitsandbytes/libbitsandbytes_(\w+)\.so")
NOTE = """benchmarks/kit/repack.py left out the libraries of this wheel for other cards and versions of CUDA.
The rest is as it was published.
"""


def repack(wheel: Path, cuda: Iterable[str]) -> list[str]:
    """Leaves only the libraries for these versions of CUDA (`130` for 13.0) and for CPUs in a wheel, in place."""
    kept = {"cpu", *(f"cuda{version}" for version in cuda)}
    with zipfile.ZipFile(wheel) as old:
        content = {name: old.read(name) for name in old.namelist()}
    libraries = {found[1]: name for name in content if (found := LIBRARY.fullmatch(name))}
    if absent := kept - set(libraries):
        raise SystemExit(f"{wheel.name} has no library for {', '.join(sorted(absent))}, only for {sorted(libraries)}.")
    left_out = sorted(name for key, name in libraries.items() if key not in kept)
    for name in left_out:
        del content[name]
    (record,) = (name for name in content if name.endswith(".dist-info/RECORD"))
    content[record.replace("RECORD", "REPACKED")] = NOTE.encode()
    lines = [f"{name},{digest(data)},{len(data)}" for name, data in content.items() if name != record]
    content[record] = ("\n".join([*lines, f"{record},,"]) + "\n").encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in content.items():
            new.writestr(name, data)
    return left_out


def digest(data: bytes) -> str:
    """As a wheel's RECORD writes it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
