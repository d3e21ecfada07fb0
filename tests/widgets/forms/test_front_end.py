"""The front-end modules as anywidget gets them, loaded by Node."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from llf_widgets.forms.columns_pane import ColumnsPane
from llf_widgets.forms.presets import Presets
from llf_widgets.forms.preview import Preview
from llf_widgets.forms.section import Section
from llf_widgets.forms.start_pane import StartPane
from llf_widgets.forms.sweep_pane import SweepPane
from llf_widgets.forms.sweep_view import SweepRuns
from llf_widgets.forms.text_pane import TextPane
from llf_widgets.inspect import Inspect

FORMS = [Section, Presets, StartPane, SweepPane, SweepRuns, TextPane, ColumnsPane, Preview]
VIEWS = [*FORMS, Inspect]


@pytest.mark.parametrize("view", VIEWS)
def test_module_loads_and_renders_by_its_default_export(view: type, tmp_path: Path) -> None:
    assert re.findall(r"^export .*$", view._esm, re.MULTILINE) == ["export default { initialize, render };"]
    assert not re.search(r"^import ", view._esm, re.MULTILINE)
    node = shutil.which("node")
    assert node, "Node 20 is needed for the tests"
    module = tmp_path / "view.mjs"
    module.write_text(view._esm, encoding="utf-8")
    check = f"import view from '{module}'; if (typeof view.render !== 'function') process.exit(3);"
    subprocess.run([node, "--input-type=module", "-e", check], check=True, timeout=60)


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_writes_html(view: type) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", view._esm)


def test_stylesheet_comes_once() -> None:
    assert [view.__name__ for view in FORMS if getattr(view, "_css", "")] == ["Presets"]
