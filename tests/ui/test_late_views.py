"""Views on a slow page, as beside a training that uses every core: modules that come too late for anywidget."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core.runs import RunWriter, create_run

if TYPE_CHECKING:
    from tests.ui.conftest import Lab

pytestmark = pytest.mark.browser

AT_ONCE = """
const given = AbortSignal.timeout.bind(AbortSignal);
AbortSignal.timeout = ms => {
  if (ms !== 2000) return given(ms);
  const controller = new AbortController();
  queueMicrotask(() => controller.abort());
  return controller.signal;
};
"""
"""anywidget's patience with a module is over before any could be loaded."""


def test_a_view_whose_module_comes_late_hears_its_kernel(page: Any, lab: Lab) -> None:
    folder = create_run("stage: sft\nmodel_name_or_path: org/tiny\nlearning_rate: 0.001\n", "late", lab.home)
    writer = RunWriter(folder)
    writer.metric(1, {"loss": 1.25})
    writer.close("finished")
    page.add_init_script(AT_ONCE)
    studio = "import llf_widgets as llf\nstudio = llf.Studio()\nstudio"
    lab.notebook("late.ipynb", studio, f"llf.Compare([{folder.id!r}])")
    lab.open(page, "late.ipynb")
    lab.run_all(page)
    form = page.locator(".llf-Studio")
    rank = form.get_by_label("LoRA rank", exact=True)
    rank.fill("48", timeout=120_000)
    page.keyboard.press("Tab")
    expect(form.get_by_label("Configuration as YAML")).to_have_value(re.compile("lora_rank: 48"))
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
    expect(page.locator(".llf-Compare")).to_contain_text("1.250")
