"""The wheel of this tree, built once a session, and the environment of its base."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.packaging.environments import ROOT, Environment, closure, run

BUILT = (ROOT / "llf_widgets" / "labextension" / "package.json", ROOT / "llf_widgets" / "static" / "monitor.js")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, with panel and views as they were built last."""
    assert all(path.exists() for path in BUILT), "Panel or views are not built. Run: make install"
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    (found,) = out.glob("llf-*.whl")
    return found


@pytest.fixture(scope="session")
def base_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and what the base of `llf` needs: no torch, no JupyterLab.

    The needed packages are links to those installed here, so that this takes a second and no network.
    """
    environment = Environment(tmp_path_factory.mktemp("base") / "venv")
    run(sys.executable, "-m", "venv", "--without-pip", environment.path)
    for name in closure("llf") - {"llf"}:
        files = distribution(name).files or ()
        for top in {file.parts[0] for file in files if file.parts[0] not in {"..", "__pycache__"}}:
            source = Path(str(distribution(name).locate_file(top)))
            link = environment.packages / top
            if source.exists() and not link.exists():
                link.symlink_to(source)
    run(sys.executable, "-m", "pip", "--python", environment.python, "install", "--no-deps", wheel)
    return environment
