"""What has to come along: pip resolves everything for another Python, and what an image lacks of it is taken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KIT = Path(__file__).with_name("kit.toml")
NEWEST_GLIBC = 39  # of the tags that pip is given, since it takes each one literally
NO_WHEEL = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)")


@dataclass(frozen=True)
class Wheel:
    """One of the packages that everything came to.

    Attributes:
        pure: whether its wheel is for every Python and machine.
    """

    name: str
    version: str
    taken: bool
    pure: bool


def settings(file: Path = KIT) -> dict[str, Any]:
    """What the kit is made for."""
    return tomllib.loads(file.read_text())


def requirements(project: Mapping[str, Any], kit: Mapping[str, Any]) -> list[str]:
    """Everything that training, its tests on a card and the benchmark need.

    Args:
        project: the table `project` of `pyproject.toml`.
        kit: `settings()`.
    """
    asked = [*project["dependencies"], *project["optional-dependencies"]["train"], *kit["more"]]
    return sorted(one for one in asked if canonicalize_name(Requirement(one).name) not in kit["leave_out"])


def constraints(kit: Mapping[str, Any]) -> list[str]:
    """The versions that the image has, where they are known."""
    return [f"{name}=={version}" for name, version in kit["image"].items() if version]


def platform_options(python: str) -> list[str]:
    """What makes pip choose wheels of another Python on Linux, x86-64."""
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(NEWEST_GLIBC, 4, -1)]
    tags += [f"manylinux{old}_x86_64" for old in ("2014", "2010", "1")]
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    return options + [f"--abi=cp{python.replace('.', '')}"] + [f"--platform={tag}" for tag in tags]


def wheels(report: Mapping[str, Any], image: Iterable[str]) -> list[Wheel]:
    """The packages of a report of `pip install --dry-run --report`, by name."""
    there, found = set(image), []
    for entry in report["install"]:
        name = canonicalize_name(entry["metadata"]["name"])
        pure = entry["download_info"]["url"].endswith("-none-any.whl")
        found.append(Wheel(name, entry["metadata"]["version"], name not in there, pure))
    return sorted(found, key=lambda one: one.name)


class Pip:
    """The newest pip, run from its wheel: an older one measures another Python's packages by its own Python.

    Args:
        work: an empty folder for it, and for what it writes.
        python: the version of Python that wheels are for, such as `3.12`.
    """

    def __init__(self, work: Path, python: str) -> None:
        self.work, self.python = work, python
        self.built = work / "built"
        self.built.mkdir()
        self._run([sys.executable, "-m", "pip"], "download", "--no-deps", "--dest", work, "pip")
        (wheel,) = work.glob("pip-*.whl")
        self.command = [sys.executable, str(wheel / "pip")]

    def report(self, asked: list[str], held: list[str]) -> dict[str, Any]:
        """What an installation would come to; a pure package that has no wheel is made into one first."""
        files = {"requirements": asked, "constraints": held}
        for name, lines in files.items():
            (self.work / f"{name}.txt").write_text("\n".join(lines) + "\n")
        out = self.work / "report.json"
        options = ["--dry-run", "--ignore-installed", "--report", out, "--target", self.work / "nowhere"]
        options += ["-r", self.work / "requirements.txt", "-c", self.work / "constraints.txt"]
        for _ in range(len(asked) + 1):
            done = self._try("install", *options, "--find-links", self.built, *platform_options(self.python))
            if done.returncode == 0:
                made: dict[str, Any] = json.loads(out.read_text())
                return made
            missing = NO_WHEEL.search(done.stderr)
            if missing is None or list(self.built.glob(f"{missing[1].replace('-', '_')}-*.whl")):
                break
            self.build(missing[1])
        raise SystemExit(f"pip finds no versions that fit together:\n{done.stderr[-3000:]}")

    def build(self, name: str) -> Path:
        """Makes a wheel of a package of which there is none; it must run on every Python and machine."""
        before = set(self.built.iterdir())
        self._run(self.command, "wheel", "--no-deps", "--wheel-dir", self.built, name)
        (wheel,) = set(self.built.iterdir()) - before
        if not wheel.name.endswith("-none-any.whl"):
            raise SystemExit(f"There is no wheel of {name} for Python {self.python}, and it is not pure Python.")
        return wheel

    def download(self, chosen: Iterable[Wheel], folder: Path) -> None:
        """Fetches wheels of these versions."""
        named = [f"{one.name}=={one.version}" for one in chosen]
        options = ["--no-deps", "--dest", folder, "--find-links", self.built]
        self._run(self.command, "download", *options, *platform_options(self.python), *named)

    def _try(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [*self.command, *map(str, words), "--quiet", "--disable-pip-version-check", "--no-input"]
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def _run(self, pip: list[str], *words: object) -> None:
        command = [*pip, *map(str, words), "--quiet", "--disable-pip-version-check", "--no-input"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(f"{' '.join(command[:6])} … failed:\n{done.stderr[-3000:]}")


def project() -> dict[str, Any]:
    """The table `project` of this tree."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found
