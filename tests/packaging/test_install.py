"""The real thing, by pip, with no Node on the path: some minutes."""

from __future__ import annotations

import shutil
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from llf_core import __version__
from tests.packaging.environments import ROOT, Environment, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
NO_NODE = {"PATH": "/nowhere"}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, ROOT)
    return out / f"llf-{__version__}.tar.gz"


def make(path: Path) -> Environment:
    run(sys.executable, "-m", "venv", path)
    return Environment(path)


def test_the_wheel_installs_by_pip_and_jupyter_finds_both_halves(wheel, tmp_path):
    environment = make(tmp_path / "venv")
    run(environment.python, "-m", "pip", "install", "-q", f"llf[lab] @ file://{wheel}", **NO_NODE)
    bin_path = f"{environment.path / 'bin'}:/usr/bin:/bin"
    quiet = {"PATH": bin_path, "HOME": str(tmp_path), "JUPYTER_PREFER_ENV_PATH": "1"}
    panels = run(environment.python, "-m", "jupyter", "labextension", "list", cwd=tmp_path, **quiet)
    assert f"llf-labextension v{__version__} enabled OK" in "".join(panels).replace("\x1b[32m", "").replace(
        "\x1b[0m", ""
    )
    servers = run(environment.python, "-m", "jupyter", "server", "extension", "list", cwd=tmp_path, **quiet)
    assert "llf_widgets" in servers
    assert "OK" in servers.split("llf_widgets", 1)[1].split("\n\n")[0]
    assert environment("from importlib.util import find_spec; print(find_spec('torch'))").strip() == "None"
    assert environment("import llf_widgets as llf; llf.Studio(); print('open')").strip().endswith("open")


def test_an_sdist_becomes_a_wheel_without_node(sdist, tmp_path):
    assert shutil.which("node", path=NO_NODE["PATH"]) is None
    environment = make(tmp_path / "venv")
    run(environment.python, "-m", "pip", "install", "-q", "--no-deps", sdist, **NO_NODE)
    panel = environment.path / "share" / "jupyter" / "labextensions" / "llf-labextension"
    assert (panel / "static" / "style.js").exists()
    assert (panel / "install.json").exists()
    assert (environment.packages / "llf_widgets" / "static" / "monitor.js").exists()


def test_the_sdist_holds_the_sources_and_no_modules_of_node(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"labextension/src/index.ts", "labextension/widgets/monitor/view.js", "labextension/yarn.lock"} <= names
    assert {"Makefile", "LICENSE", "NOTICE"} <= names
    assert not [name for name in names if "node_modules" in name or name.startswith((".venv", "labextension/lib"))]


def test_an_editable_install_needs_no_node_when_told_to_skip(tmp_path):
    copy = tmp_path / "tree"
    shutil.copytree(
        ROOT,
        copy,
        ignore=shutil.ignore_patterns(".git", ".venv", "node_modules", "labextension/lib", "__pycache__"),
    )
    for built in ("labextension", "static"):
        shutil.rmtree(copy / "llf_widgets" / built)
    environment = make(tmp_path / "venv")
    run(
        environment.python,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "-e",
        copy,
        SKIP_JUPYTER_BUILDER="1",
        **NO_NODE,
    )
    assert str(copy) in environment("import llf_core; print(llf_core.__file__)")
