"""What was deleted: Undo, the bin, and removal for good; in JupyterLab and Notebook 7."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core import runs
from tests.ui.test_panel import PANEL, open_panel, picture, show_in_notebook_7
from tests.ui.test_panel_faults import SAID, SEEN, first_line, made, no_other_runs, row_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ui.conftest import Lab

__all__ = ["made", "no_other_runs"]  # fixtures
pytestmark = pytest.mark.browser
TOAST = ".Toastify__toast"


@pytest.fixture(autouse=True)
def empty_bin(lab: Lab) -> None:
    """Puts aside what other tests have deleted."""
    left = lab.home / "bin"
    if left.is_dir():
        left.rename(lab.home / f"bin-before-{time.time_ns()}")


@pytest.fixture
def many(made: Callable[..., runs.RunFolder]) -> list[runs.RunFolder]:
    """Sixty runs that have ended: the end of the list is far below the window's."""
    return [made(f"experiment {number}", state="finished", step=9, total=9) for number in range(60)]


def choose_two(panel: Any, folders: list[runs.RunFolder]) -> None:
    for folder in folders:
        row_of(panel, folder).click(modifiers=["Control"])
    expect(panel.get_by_text("2 selected")).to_be_visible(timeout=SEEN)


def test_undo_is_in_the_window_and_restores_all(page: Any, lab: Lab, many: list[runs.RunFolder]) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    panel = open_panel(page, lab)
    expect(panel.locator("[data-run]")).to_have_count(50, timeout=SEEN)
    two = [many[58], many[56]]
    choose_two(panel, two)
    page.keyboard.press("Delete")
    toast = page.locator(TOAST, has_text="2 runs moved to the bin.")
    toast.hover(timeout=SEEN)  # it stays while the pointer is on it, and goes after 20 seconds otherwise
    expect(panel.locator(SAID)).to_have_text("2 runs moved to the bin.")
    expect(panel.locator(SAID)).to_be_in_viewport(ratio=1, timeout=SEEN)
    undo = toast.get_by_role("button", name="Undo")
    expect(undo).to_be_in_viewport(ratio=1, timeout=SEEN)
    picture(page, "undo")
    for folder in two:
        expect(row_of(panel, folder)).to_have_count(0, timeout=SEEN)
        assert not folder.path.exists()
    undo.click()
    for folder in two:
        expect(row_of(panel, folder)).to_be_visible(timeout=SEEN)
        assert folder.status.is_file()
    expect(toast).to_have_count(0, timeout=SEEN)


def test_keys_delete_and_leave(page: Any, lab: Lab, made: Callable[..., runs.RunFolder]) -> None:
    first, second, live = (
        made("first", state="finished", step=9, total=9),
        made("second", state="stopped", step=3, total=9),
        made("live", live=True, step=3, total=9),
    )
    panel = open_panel(page, lab)
    row_of(panel, second).focus(timeout=SEEN)
    page.keyboard.press("Delete")
    expect(row_of(panel, second)).to_have_count(0, timeout=SEEN)
    expect(row_of(panel, first)).to_be_visible()
    page.wait_for_function("() => document.activeElement.dataset.run", timeout=SEEN)  # on the next row

    row_of(panel, live).focus()
    page.keyboard.press("Delete")
    expect(panel.locator(SAID)).to_have_text(
        "“live” is still running. Stop it before you move it to the bin.", timeout=SEEN
    )
    for folder in (first, live):
        if row_of(panel, folder).get_attribute("aria-pressed") == "false":
            row_of(panel, folder).click(modifiers=["Control"])
        expect(row_of(panel, folder)).to_have_attribute("aria-pressed", "true")
    expect(panel.get_by_text("2 selected")).to_be_visible(timeout=SEEN)
    page.keyboard.press("Escape")
    expect(panel.get_by_text("2 selected")).to_have_count(0)

    # In the details, too; and out of them.
    row_of(panel, first).click()
    expect(panel.get_by_role("article", name="first")).to_be_visible(timeout=SEEN)
    page.keyboard.press("Escape")
    expect(row_of(panel, first)).to_be_focused(timeout=SEEN)
    page.keyboard.press("Enter")
    expect(panel.get_by_role("article", name="first")).to_be_visible(timeout=SEEN)
    page.keyboard.press("Delete")
    expect(row_of(panel, first)).to_have_count(0, timeout=SEEN)
    assert first.path.parent.parent.joinpath("bin", first.id, "status.json").is_file()
    assert live.path.is_dir()


def test_a_menu_gives_the_focus_back(page: Any, lab: Lab, made: Callable[..., runs.RunFolder]) -> None:
    folders = [made(f"run {number}", state="finished", step=9, total=9) for number in range(2)]
    panel = open_panel(page, lab)
    row_of(panel, folders[0]).focus(timeout=SEEN)
    page.keyboard.press("ContextMenu")
    expect(page.get_by_role("menuitem", name="Rename…")).to_be_visible(timeout=SEEN)
    page.keyboard.press("Escape")
    expect(row_of(panel, folders[0])).to_be_focused(timeout=SEEN)
    page.keyboard.press("Escape")  # the menu has chosen its row
    choose_two(panel, folders)
    more = panel.get_by_role("button", name="More…")
    more.press("Enter")
    expect(page.get_by_role("menuitem", name="Edit tags of 2 runs…")).to_be_visible(timeout=SEEN)
    page.keyboard.press("Escape")
    expect(more).to_be_focused(timeout=SEEN)


def test_the_bin_is_seen_restored_from_and_emptied(page: Any, lab: Lab, made: Callable[..., runs.RunFolder]) -> None:
    folders = [made(f"<b>run</b> {number}", state="finished", step=9, total=9) for number in range(4)]
    for folder in folders:
        runs.delete_run(folder.id, lab.home)
    panel = open_panel(page, lab)
    panel.get_by_role("button", name="Bin: 4 runs").click(timeout=SEEN)
    items = panel.locator("[data-binned]")
    expect(items).to_have_count(4, timeout=SEEN)
    expect(items.first).to_contain_text("<b>run</b> 3")
    expect(items.first).to_contain_text("finished, deleted ")
    picture(page, "bin")
    items.first.get_by_role("button", name="Restore").click()
    expect(items).to_have_count(3, timeout=SEEN)
    assert folders[3].status.is_file()

    items.first.get_by_role("button", name="Delete permanently…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Permanently delete “<b>run</b> 2”?")
    picture(page, "bin-dialog")
    page.keyboard.press("Enter")  # pressed in haste: the default is to keep it
    expect(dialog).to_have_count(0)
    expect(items).to_have_count(3)
    items.first.get_by_role("button", name="Delete permanently…").click()
    dialog.get_by_role("button", name="Delete permanently").click()
    expect(items).to_have_count(2, timeout=SEEN)
    assert not lab.home.joinpath("bin", folders[2].id).exists()

    panel.get_by_role("button", name="Delete all permanently…").click()
    dialog.get_by_role("button", name="Delete permanently").click()
    expect(panel.get_by_text("The bin is empty.")).to_be_visible(timeout=SEEN)
    expect(panel.locator(SAID)).to_have_text("2 runs permanently deleted.")
    page.keyboard.press("Escape")
    expect(row_of(panel, folders[3])).to_be_visible(timeout=SEEN)
    expect(panel.get_by_role("button", name="Bin:")).to_have_count(0)


def test_two_tabs_delete_and_restore_one_run(page: Any, lab: Lab, made: Callable[..., runs.RunFolder]) -> None:
    folder = made("twice", state="finished", step=9, total=9)
    other = page.context.new_page()
    panels = []
    for number, tab in enumerate((page, other)):
        tab.goto(f"{lab.url}lab/workspaces/bin{number}?token=llf-test-token&reset")
        tab.wait_for_function("window.jupyterapp && window.jupyterapp.shell", timeout=120_000)
        tab.evaluate("() => window.jupyterapp.restored.then(() => window.jupyterapp.shell.activateById('llf-runs'))")
        panels.append(tab.locator(PANEL))
        expect(row_of(panels[-1], folder)).to_be_visible(timeout=SEEN)
        tab.route("**/llf/api/runs?**", lambda route: route.abort())  # both show what was true a moment ago
    answers = ("“twice” moved to the bin.", f"No run {folder.id} in the LLF_HOME of the server.")
    for panel, tab, answer in zip(panels, (page, other), answers, strict=True):
        row_of(panel, folder).focus()
        tab.keyboard.press("Delete")
        expect(panel.locator(SAID)).to_have_text(answer, timeout=SEEN)
        if tab is page:
            page.locator(TOAST).hover()  # it stays while the pointer is on it, and goes after 20 seconds otherwise
    assert lab.home.joinpath("bin", folder.id, "status.json").is_file()
    for tab in (page, other):
        tab.unroute("**/llf/api/runs?**")
    other.evaluate("() => window.jupyterapp.shell.activateById('llf-runs')")
    panels[1].get_by_role("button", name="Bin:").click(timeout=SEEN)
    panels[1].get_by_role("button", name="Restore twice").click()
    expect(panels[1].get_by_text("The bin is empty.")).to_be_visible(timeout=SEEN)
    page.locator(TOAST).get_by_role("button", name="Undo").click()
    expect(panels[0].locator(SAID)).to_have_text("The bin does not contain this run.", timeout=SEEN)
    expect(row_of(panels[0], folder)).to_be_visible(timeout=SEEN)


def test_undo_is_in_notebook_7_too(page: Any, lab: Lab, made: Callable[..., runs.RunFolder]) -> None:
    folders = [made(f"seven {number}", state="finished", step=9, total=9) for number in range(2)]
    lab.notebook("bin.ipynb", "1")
    page.goto(lab.address("bin.ipynb", "notebooks"))
    panel = show_in_notebook_7(page)
    expect(first_line(row_of(panel, folders[0]))).to_have_text("seven 0", timeout=SEEN)
    choose_two(panel, folders)
    page.keyboard.press("Delete")
    toast = page.locator(TOAST, has_text="2 runs moved to the bin.")
    toast.hover(timeout=SEEN)  # it stays while the pointer is on it, and goes after 20 seconds otherwise
    undo = toast.get_by_role("button", name="Undo")
    expect(undo).to_be_visible(timeout=SEEN)
    expect(undo).to_be_in_viewport(ratio=1, timeout=SEEN)
    picture(page, "undo-notebook-7")
    undo.click()
    for folder in folders:
        expect(row_of(panel, folder)).to_be_visible(timeout=SEEN)
        assert folder.status.is_file()
