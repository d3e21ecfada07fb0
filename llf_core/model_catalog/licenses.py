from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("licenses.toml")


@dataclass(frozen=True, slots=True)
class License:
    """A license with conditions."""

    title: str
    conditions: str
    url: str


@cache
def license_conditions() -> dict[str, License]:
    """Licenses with conditions beyond keeping a notice, by name, from `licenses.toml`."""
    with FILE.open("rb") as file:
        return {name: License(**entry) for name, entry in tomllib.load(file).items()}
