"""Which wheels of a kit an environment lacks, and what the kit lacks too; needs no package but pip."""

from __future__ import annotations

import importlib.metadata
import zipfile
from dataclasses import dataclass, field
from email.parser import HeaderParser
from typing import TYPE_CHECKING, Any

try:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
except ImportError:  # then pip has it
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
    from pip._vendor.packaging.utils import canonicalize_name  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Offer:
    """A wheel of the kit: its version, its file, what it requires."""

    version: str
    file: Path
    requires: tuple[str, ...] = ()


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        missing: sentences about what neither has.
    """

    install: dict[str, Offer] = field(default_factory=dict)
    there: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def offers(folder: Path) -> dict[str, Offer]:
    """The wheels of a folder, by name."""
    found: dict[str, Offer] = {}
    for file in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(file) as opened:
            (name,) = (one for one in opened.namelist() if one.count("/") == 1 and one.endswith(".dist-info/METADATA"))
            headers = HeaderParser().parsestr(opened.read(name).decode())
        requires = tuple(headers.get_all("Requires-Dist") or ())
        found[canonicalize_name(headers["Name"])] = Offer(headers["Version"], file, requires)
    return found


def installed_version(name: str) -> str | None:
    """The version of a package that this Python finds; None where it finds none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def plan(
    roots: Iterable[str],
    offered: Mapping[str, Offer],
    installed: Callable[[str], str | None] = installed_version,
    left_out: Iterable[str] = (),
) -> Plan:
    """What has to be installed so that all of `roots` are there, and all that the installed wheels require.

    What is there stays where its version does for everyone who asks for it; whatever that requires in its turn is left
    to whoever put it there.
    """
    asked: dict[str, dict[str, Any]] = {}  # by package: who asks, and for which versions
    install: dict[str, Offer] = {}
    todo = [(one, "LLF") for one in roots]
    while todo:
        text, who = todo.pop(0)
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in left_out or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        asked.setdefault(name, {})[who] = requirement.specifier
        if name in install or name not in offered or _does(installed(name), asked[name]):
            continue
        install[name] = offered[name]
        todo += [(one, name) for one in offered[name].requires]
    made = Plan(install)
    for package, specifiers in sorted(asked.items()):
        version = install[package].version if package in install else installed(package)
        if version is not None and package not in install:
            made.there[package] = version
        if not _does(version, specifiers):
            unmet = ((one, spec) for one, spec in specifiers.items() if not _fits(version, spec))
            wanted = ", ".join(f"{one} needs {package}{spec}" for one, spec in unmet)
            made.missing.append(f"{wanted}; {f'there is {version}' if version else 'there is none'}")
    return made


def _does(version: str | None, asked: Mapping[str, Any]) -> bool:
    return all(_fits(version, specifier) for specifier in asked.values())


def _fits(version: str | None, specifier: Any) -> bool:
    return version is not None and bool(specifier.contains(version, prereleases=True))
