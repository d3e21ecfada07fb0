"""Commands, and the environments that packages are installed in."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def packages(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.path / "lib" / version / "site-packages"

    def __call__(self, code: str, **env: str) -> str:
        """Output of Python code run there, far from this tree."""
        return run(self.python, "-c", code, cwd=self.path, **env)


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of a distribution and of all that it needs, as they are installed here."""
    found: set[str] = set()
    waiting = [(name, extras)]
    while waiting:
        name, extras = waiting.pop()
        key = name.lower().replace("_", "-")
        if key in found and not extras:
            continue
        found.add(key)
        for text in distribution(name).requires or ():
            need = Requirement(text)
            contexts = [{"extra": extra} for extra in ("", *extras)]
            if need.marker is None or any(need.marker.evaluate(context) for context in contexts):
                waiting.append((need.name, frozenset(need.extras)))
    return found
