"""The built front-end modules as anywidget gets them, loaded by Node, and their sources."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from llf_widgets import view_files
from llf_widgets.forms.section import FormWidget

SOURCES = Path(__file__).parents[3] / "labextension" / "widgets"
WITHOUT_CHARTS = [
    "evaluation",
    "examples",
    "export",
    "forms",
    "inspect",
]  # plotly.js, which the others bundle, needs a page to load


@pytest.mark.parametrize("view", WITHOUT_CHARTS)
def test_module_loads_and_renders_by_its_default_export(view: str, tmp_path: Path) -> None:
    built = view_files.script(view)
    assert isinstance(built, Path), "The views are not built. Run: make install"
    node = shutil.which("node")
    assert node, "Node 20 is needed for the tests"
    module = tmp_path / "view.mjs"
    module.write_text(view_files.text(built), encoding="utf-8")
    check = f"import view from '{module}'; if (typeof view.render !== 'function') process.exit(3);"
    subprocess.run([node, "--input-type=module", "-e", check], check=True, timeout=60)


@pytest.mark.parametrize("view", ["compare", "monitor", *WITHOUT_CHARTS])
def test_module_imports_nothing_and_exports_its_view(view: str) -> None:
    module = view_files.text(view_files.script(view))
    assert not re.search(r"^import\b", module, re.MULTILINE)
    assert len(re.findall(r"export ?\{[\w$]+ as default\}", module)) == 1


def test_no_view_writes_html() -> None:
    sources = sorted(SOURCES.rglob("*.js"))
    assert sources
    written = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write")
    assert [path.name for path in sources if written.search(path.read_text(encoding="utf-8"))] == []


def test_stylesheet_comes_once() -> None:
    with_style = [pane.__name__ for pane in FormWidget.__subclasses__() if getattr(pane, "_css", "")]
    assert with_style == ["PresetSelector"]
