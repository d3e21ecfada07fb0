"""The front ends of the views, built and not built."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from llf_widgets import view_files
from llf_widgets.forms import (
    column_mapping,
    config_editor,
    fit_strip,
    preview,
    section,
    start_controls,
    sweep_form,
    trained_parameters,
)
from llf_widgets.forms.section import FormWidget

SOURCES = Path(__file__).parents[2] / "labextension" / "widgets"
COMPONENTS = (
    column_mapping.ColumnMapping,
    config_editor.PresetSelector,
    preview.DataPreview,
    section.FormSection,
    start_controls.StartControls,
    sweep_form.SweepForm,
    sweep_form.SweepRunTable,
    config_editor.ConfigEditor,
    fit_strip.FitStrip,
    trained_parameters.TrainedParameters,
)


def test_a_built_view_is_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(view_files, "FOLDER", tmp_path)
    for kind in ("js", "css"):
        (tmp_path / f"monitor.{kind}").write_text(f"of {kind}")
    assert view_files.script("monitor") == tmp_path / "monitor.js"
    assert view_files.text(view_files.stylesheet("monitor")) == "of css"


@pytest.mark.parametrize(("component", "shown"), [(None, True), ("presets", True), ("section", False)])
def test_a_view_that_is_not_built_says_so_once(tmp_path, monkeypatch, component, shown):
    monkeypatch.setattr(view_files, "FOLDER", tmp_path)
    assert view_files.stylesheet("forms") == ""
    module = view_files.script("forms")
    assert isinstance(module, str)
    sentence = json.loads(re.search(r'textContent = (".*");', module)[1])
    assert sentence.startswith(
        "LLF's notebook views are not built: llf_widgets/static/forms.js does not exist. Run `make"
    )
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node")
    model = "undefined" if component is None else f"{{ get: () => {json.dumps(component)} }}"
    code = f"{module}\n".replace("export default", "const view =")
    code += f"const el = {{}}; view.render({{ model: {model}, el }}); console.log(el.textContent ?? '');"
    said = subprocess.run([node, "--eval", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.strip() == (sentence if shown else "")


def test_the_script_of_the_form_draws_each_of_its_components():
    assert set(FormWidget.__subclasses__()) == set(COMPONENTS)
    named = re.search(r"const COMPONENTS = \{(.*?)\};", (SOURCES / "forms" / "view.js").read_text(), re.DOTALL)[1]
    drawn = re.findall(r"(\w+):", named)
    assert sorted(drawn) == sorted(component._component.default_value for component in COMPONENTS)
