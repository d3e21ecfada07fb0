"""What the panel starts in notebooks: from the launcher, without a kernel, and after one was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core import runs
from tests.processes import end, processes_of, running
from tests.ui.conftest import TOKEN, Lab
from tests.ui.test_panel import PANEL, menu, open_panel, picture
from tests.ui.test_panel_faults import SEEN, made, no_other_runs, row_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["made", "no_other_runs"]  # fixtures
pytestmark = pytest.mark.browser
STARTS = 120_000  # ms for a kernel to import the package on a machine that is also used by others


def test_the_launcher_opens_a_notebook_with_a_form(page: Any, lab: Lab) -> None:
    page.goto(f"{lab.url}lab?token={TOKEN}&reset")
    card = page.locator(".jp-LauncherCard", has_text="New LLF run")
    expect(card).to_be_visible(timeout=STARTS)
    page.wait_for_function(
        "card => card.querySelector('img')?.naturalWidth > 0", arg=card.element_handle(), timeout=SEEN
    )
    picture(page, "launcher")
    card.click()
    expect(page.locator(".jp-Notebook .llf-Studio-grid").first).to_be_visible(timeout=STARTS)
    expect(page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(1)
    expect(page.locator(".jp-Launcher")).to_have_count(0)  # the notebook took its place
    picture(page, "launched")


@pytest.mark.parametrize("kernel", ["shut down", "killed"])
def test_a_notebook_without_a_kernel_gets_one(page: Any, lab: Lab, made: Callable[..., Any], kernel: str) -> None:
    folder = made("quiet", state="finished", step=9, total=9)
    other = made("other", state="finished", step=9, total=9)
    panel = open_panel(page, lab)
    lab.settle(page)
    if kernel == "shut down":
        page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.sessionContext.session", timeout=SEEN)
    else:
        kernels = running(processes_of(lab.home), "ipykernel_launcher")
        assert kernels
        end(kernels)
        page.get_by_role("dialog", name="Kernel Restarting").get_by_role("button", name="Ok").click(timeout=STARTS)
    for one in (folder, other):
        if row_of(panel, one).get_attribute("aria-pressed") == "false":
            row_of(panel, one).click(modifiers=["Control"])
        expect(row_of(panel, one)).to_have_attribute("aria-pressed", "true")
    menu(page, row_of(panel, folder), "Compare 2 runs")
    expect(page.locator(".llf-Compare").first).to_be_visible(timeout=STARTS)
    assert page.locator(f"{PANEL} .llf-RunsPanel-status").text_content() == ""


@pytest.mark.parametrize("kernel", ["none", "busy"])
def test_the_monitor_opens_without_the_kernel(page: Any, lab: Lab, made: Callable[..., Any], kernel: str) -> None:
    folder = made("quiet", state="finished", step=3, total=3)
    writer = runs.RunWriter(folder)
    for step in (1, 2, 3):
        writer.metric(step, {"loss": 1.0 / step})
    panel = open_panel(page, lab)
    lab.settle(page)
    if kernel == "none":
        page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.sessionContext.session", timeout=SEEN)
    else:
        lab.run_cell(page, 0, "import time; print('asleep'); time.sleep(300)")  # the status is also that of subshells
        expect(page.locator(".jp-OutputArea-output").first).to_contain_text("asleep", timeout=SEEN)
    page.evaluate("() => window.jupyterapp.shell.activateById('llf-runs')")
    expect(row_of(panel, folder)).to_be_visible(timeout=SEEN)
    menu(page, row_of(panel, folder), "Open monitor")
    monitor = page.locator(".jp-Notebook .llf-Monitor")
    expect(monitor.locator(".llf-State").first).to_have_text("finished", timeout=SEEN)
    expect(monitor.locator(".js-plotly-plot").first).to_be_visible(timeout=SEEN)
    picture(page, f"monitor-{kernel}")
    expect(page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(2)
    source = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.source")
    assert source == f'import llf_widgets as llf\nllf.Monitor("{folder.id}")'
    if kernel == "none":
        assert page.evaluate("() => !window.jupyterapp.shell.currentWidget.sessionContext.session")
    else:
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel').then(() => null)")


def test_an_adapter_and_a_checkpoint_open_a_chat_by_keyboard(page: Any, lab: Lab, made: Callable[..., Any]) -> None:
    folder = made("tuned", state="finished", step=4, total=4)
    folder.config.write_text("stage: sft\nmodel_name_or_path: tiny\ndataset: data.json\n")
    checkpoint = runs.Checkpoints(folder).path(2)
    for place in (folder.output, checkpoint):
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text('{"r": 8}')
    runs.Checkpoints(folder).finish(2)
    panel = open_panel(page, lab)
    lab.settle(page)
    page.evaluate("() => window.jupyterapp.shell.activateById('llf-runs')")
    panel.get_by_role("button", name="Chat with tuned").press("Enter", timeout=SEEN)
    chat = page.locator(".jp-Notebook .llf-Chat")
    expect(chat.first).to_contain_text("adapter of step 4", timeout=STARTS)
    row_of(panel, folder).click()
    panel.get_by_role("button", name="Chat with step 2").press("Enter", timeout=SEEN)
    expect(chat.last).to_contain_text("adapter of step 2", timeout=STARTS)
    expect(chat).to_have_count(2)
    sources = page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.sharedModel.source)"
    )
    calls = [f'llf.Chat("{folder.id}@base", "{folder.id}{at}")' for at in ("", "@2")]
    assert [source.splitlines()[-1] for source in sources if "Chat" in source] == calls
