"""A run's whole life in JupyterLab, with the real trainer: form, Start, Stop, Resume, reload, restart, Kill."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core.runs import Checkpoints, RunFolder
from tests.ui.conftest import new_context

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ui.conftest import Lab

pytestmark = [pytest.mark.browser, pytest.mark.launches]

ROWS = [{"instruction": f"What is {a} plus {b}?", "output": f"It is {a + b}."} for a in range(9) for b in range(9)]
STUDIO = "import llf_widgets as llf\nstudio = llf.Studio()\nstudio"
FIELDS = {"Steps": "200000", "Log every": "1", "Batch size": "8"}
POINTS = "() => document.querySelector('.llf-Monitor .js-plotly-plot')?.data?.[0]?.x?.length ?? 0"
KERNEL = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
LOADS = 180_000  # ms for a trainer to import torch on a machine that is also used by others


def wait_for_points(page: Any, more_than: int) -> int:
    page.wait_for_function(f"n => ({POINTS})() > n", arg=more_than, timeout=LOADS)
    return page.evaluate(POINTS)


def shown_state(page: Any) -> Any:
    return page.locator(".llf-Monitor .llf-State").first


def click(page: Any, name: str) -> None:
    page.locator(".llf-Monitor").get_by_role("button", name=name).click()


def stored(folder: RunFolder) -> dict[str, Any]:
    return json.loads(folder.status.read_text())


def start_from_the_form(page: Any, lab: Lab, model: Path) -> RunFolder:
    form = page.locator(".llf-Studio")
    for label, value in {"Model": str(model), "Data set": "sums.json", **FIELDS}.items():
        form.locator("input").and_(form.get_by_label(label, exact=True)).fill(value)
        page.keyboard.press("Tab")
    form.get_by_label("Name", exact=True).fill("life")
    start = form.get_by_role("button", name="Start", exact=True)
    expect(start).to_be_enabled()
    start.click()
    expect(shown_state(page)).to_have_text("running", timeout=LOADS)
    (path,) = (lab.home / "runs").glob("*-life")
    return RunFolder(path)


def stop_beside_a_sleeping_cell(page: Any, lab: Lab, folder: RunFolder) -> dict[str, Any]:
    """Steers the run through the Jupyter server while the kernel is busy; returns the status then."""
    lab.run_cell(page, 1)
    asleep = page.locator(".jp-CodeCell").nth(1).locator(".jp-InputPrompt")
    expect(asleep).to_have_text("[*]:")
    click(page, "Kill…")
    expect(page.get_by_role("button", name="Keep running")).to_be_focused()
    click(page, "Keep running")
    click(page, "Save checkpoint")
    expect(page.locator(".llf-Monitor .llf-Events")).to_contain_text("checkpoint requested by monitor")
    click(page, "Stop with checkpoint")
    expect(shown_state(page)).to_have_text("stopped")
    expect(asleep).to_have_text("[*]:", timeout=1)
    stopped = stored(folder)
    assert stopped["state"] == "stopped"
    assert Checkpoints(folder).list()[-1] == stopped["step"]
    assert (folder.checkpoints / f"checkpoint-{stopped['step']}" / "adapter_model.safetensors").is_file()
    return stopped


@pytest.mark.timeout(600)
def test_a_run_lives_through_all_that_happens_to_its_notebook(page: Any, browser: Any, lab: Lab, tiny_model_dir: Path):
    (lab.root / "sums.json").write_text(json.dumps(ROWS))
    lab.notebook("life.ipynb", STUDIO, "import time; time.sleep(300)")
    lab.open(page, "life.ipynb")
    lab.run_cell(page, 0)
    folder = start_from_the_form(page, lab, tiny_model_dir)
    drawn = wait_for_points(page, 0)
    assert wait_for_points(page, drawn + 5) > drawn + 5

    stopped = stop_beside_a_sleeping_cell(page, lab, folder)

    # Resume goes through the kernel, which is interrupted first.
    page.evaluate(f"() => ({KERNEL})().interrupt().then(() => null)")
    click(page, f"Resume from {stopped['step']}")
    expect(shown_state(page)).to_have_text("running", timeout=LOADS)
    resumed = wait_for_points(page, stopped["step"])
    expect(page.locator(".llf-Monitor")).to_contain_text(f"Attempt 2, resumed from step {stopped['step']}.")

    # The page is reloaded: what was streamed since is there, and the run was not touched.
    lab.save(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    lab.settle(page)
    reloaded = wait_for_points(page, resumed)
    expect(shown_state(page)).to_have_text("running")

    # The kernel is restarted: the form says so, its monitor goes on, and a cell shows the run again.
    page.evaluate(f"() => ({KERNEL})().restart().then(() => null)")
    expect(page.get_by_text("The kernel of this form has shut down.")).to_be_visible(timeout=120_000)
    reloaded = wait_for_points(page, reloaded)
    lab.run_cell(page, 0, f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    again = wait_for_points(page, reloaded)
    assert (stored(folder)["state"], stored(folder)["attempt"]) == ("running", 2)

    # A second notebook follows the same run; what one asks, both show.
    lab.notebook("second.ipynb", f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    second = new_context(browser).new_page()
    lab.open(second, "second.ipynb")
    lab.run_cell(second, 0)
    wait_for_points(second, again)
    click(second, "Kill…")
    click(second, "Kill now")
    for one in (page, second):
        expect(shown_state(one)).to_have_text("failed")
        expect(one.locator(".llf-Monitor").get_by_role("alert").first).to_contain_text("Killed by the user at step")
    killed = stored(folder)
    assert killed["state"] == "failed"
    assert f"checkpoint-{Checkpoints(folder).list()[-1]} is complete" in killed["reason"]
    second.context.close()
