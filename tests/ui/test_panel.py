"""The panel in JupyterLab and Notebook 7, as a reader sees it."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from playwright.sync_api import Error, expect

from llf_core import runs
from llf_core.launch import attach, launch
from tests.ui.conftest import PATIENCE, set_theme

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.browser
PANEL = ".llf-RunsPanel"


def open_panel(page: Any, lab: Any) -> Any:
    """Shows the panel in JupyterLab; returns its locator."""
    lab.notebook("panel.ipynb", "1")
    page.goto(lab.address("panel.ipynb"))
    return show_panel(page)


def show_panel(page: Any) -> Any:
    """Shows the panel in a page that loads; returns its locator."""
    page.wait_for_function("window.jupyterapp && window.jupyterapp.shell", timeout=120_000)
    # A notebook takes the focus once it is shown, which on a busy machine can be long after the panel is there.
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(state="visible", timeout=120_000)
    page.evaluate("() => window.jupyterapp.restored.then(() => window.jupyterapp.shell.activateById('llf-runs'))")
    panel = page.locator(PANEL)
    panel.wait_for(state="visible", timeout=PATIENCE)
    return panel


def show_in_notebook_7(page: Any) -> Any:
    """Shows the panel in a page of Notebook 7 that loads; returns its locator.

    A menu closes when the notebook takes the focus, which on a busy machine can be long after it is shown.
    """
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    until = time.monotonic() + PATIENCE / 1000
    while True:
        page.locator(".lm-MenuBar-item", has_text="View").click()
        try:
            page.locator(".lm-Menu-item", has_text="Left Sidebar").hover(timeout=10_000)
            page.locator(".lm-Menu-item", has_text="LLF: runs").click(timeout=10_000)
        except Error:
            assert time.monotonic() < until
            page.keyboard.press("Escape")
        else:
            return page.locator(PANEL)


@pytest.fixture(autouse=True)
def no_other_runs(lab: Any) -> None:
    """Puts aside what other tests of the same server left: the panel starts empty."""
    left = lab.home / "runs"
    if left.is_dir():
        left.rename(lab.home / f"runs-before-{time.time_ns()}")


@pytest.fixture
def some_runs(lab: Any) -> Any:
    """Runs by hand in the server's home: one that this process seems to train, a failed one, a finished one."""
    folders = []
    here = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    for name, status in (
        ("1 finished", {"state": "finished", "step": 141, "total": 141}),
        ("2 failed", {"state": "failed", "step": 12, "total": 141, "reason": "Killed by the memory limit."}),
        ("3 <b>live</b>", {"state": "running", "step": 93, "total": 141} | here),
    ):
        folder = runs.create_run("stage: sft\n", name, lab.home)
        folder.status.write_text(json.dumps(json.loads(folder.status.read_text()) | status))
        folders.append(folder)
    yield folders
    for folder in folders:
        runs.delete_run(folder.id, lab.home) if folder is not folders[2] else _finish(folder, lab.home)


def _finish(folder: Any, home: Path) -> None:
    folder.status.write_text(json.dumps(json.loads(folder.status.read_text()) | {"state": "stopped"}))
    runs.delete_run(folder.id, home)


def test_no_runs_yet_says_how_to_start(page: Any, lab: Any) -> None:
    panel = open_panel(page, lab)
    panel.get_by_text("No runs yet").wait_for(timeout=PATIENCE)
    assert "llf.Studio()" in panel.inner_text()
    assert str(lab.home / "runs") in panel.inner_text()


def test_runs_are_listed_and_followed(page: Any, lab: Any, some_runs: Any) -> None:
    panel = open_panel(page, lab)
    rows = panel.locator("[data-run]")
    rows.nth(2).wait_for(timeout=PATIENCE)
    assert [rows.nth(index).locator(".llf-RunsPanel-name").text_content() for index in range(3)] == [
        "3 <b>live</b>",
        "2 failed",
        "1 finished",
    ]
    assert "running 93/141" in rows.nth(0).inner_text()

    live = some_runs[2]
    live.status.write_text(json.dumps(json.loads(live.status.read_text()) | {"step": 94}))
    panel.get_by_text("running 94/141").wait_for(timeout=PATIENCE)


def test_a_run_is_reached_and_copied_by_keyboard(page: Any, lab: Any, some_runs: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel = open_panel(page, lab)
    rows = panel.locator("[data-run]")
    rows.nth(2).wait_for(timeout=PATIENCE)
    rows.nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    panel.get_by_text("Killed by the memory limit.").wait_for(timeout=PATIENCE)
    panel.get_by_role("button", name="More…").press("Enter")
    page.get_by_role("menuitem", name="Copy as code").click()
    panel.get_by_text("Copied. Paste it into a cell.").wait_for(timeout=PATIENCE)
    code = f'import llf_widgets as llf\nllf.Monitor("{some_runs[1].id}")'
    assert page.evaluate("() => navigator.clipboard.readText()") == code


def test_every_control_has_a_name_and_the_list_is_searched(page: Any, lab: Any, some_runs: Any) -> None:
    panel = open_panel(page, lab)
    rows = panel.locator("[data-run]")
    rows.nth(2).wait_for(timeout=PATIENCE)
    for role in ("button", "textbox", "combobox"):
        for control in panel.get_by_role(role).all():
            assert control.evaluate("e => e.ariaLabel || e.textContent.trim() || e.labels?.length")
    panel.get_by_role("textbox", name="Search runs").fill("fail")
    page.wait_for_function(f"() => document.querySelectorAll('{PANEL} [data-run]').length === 1", timeout=PATIENCE)
    panel.get_by_role("combobox", name="State").select_option("finished")
    panel.get_by_text("No runs match the search and the filter.").wait_for(timeout=PATIENCE)
    panel.get_by_role("button", name="Show all runs").click()
    rows.nth(2).wait_for(timeout=PATIENCE)
    panel.get_by_role("combobox", name="Group by").select_option("model")
    panel.get_by_role("heading", name="3 runs").wait_for(timeout=PATIENCE)


def test_runs_are_sorted_by_a_metric_of_their_evaluations_also_after_a_reload(
    page: Any, lab: Any, some_runs: Any
) -> None:
    for folder, value in zip(some_runs[1:], (0.25, 0.75), strict=True):
        runs.RunWriter(folder).metric(9, {"eval_rougeL": value, "eval_rougeL/low": 0.0, "eval_runtime": 1.0})
    panel = open_panel(page, lab)
    rows = panel.locator("[data-run]")
    rows.nth(2).wait_for(timeout=PATIENCE)
    order = panel.get_by_role("combobox", name="Sort by")
    chosen = "metric:eval_rougeL"
    order.locator(f"option[value='{chosen}']").wait_for(state="attached", timeout=PATIENCE)
    assert order.locator("option").all_text_contents()[2:4] == ["Lowest loss", "Highest eval ROUGE-L"]
    order.focus()
    page.keyboard.type("Highest")  # a list is chosen from by keys
    assert order.input_value() == chosen
    expected = ["3 <b>live</b>", "2 failed", "1 finished"]  # runs without the metric come last
    names = rows.locator(".llf-RunsPanel-name")
    page.wait_for_function(
        "() => document.querySelector('.llf-RunsPanel-loss')?.textContent === '75 %'", timeout=PATIENCE
    )
    assert names.all_text_contents() == expected
    assert rows.nth(2).locator(".llf-RunsPanel-loss").count() == 0
    page.reload()
    panel = show_panel(page)
    page.wait_for_function(
        "() => document.querySelector('.llf-RunsPanel-loss')?.textContent === '75 %'", timeout=PATIENCE
    )
    assert panel.get_by_role("combobox", name="Sort by").input_value() == chosen


def test_runs_are_renamed_and_go_to_the_bin_and_back(page: Any, lab: Any, some_runs: Any) -> None:
    panel = open_panel(page, lab)
    rows = panel.locator("[data-run]")
    rows.nth(2).wait_for(timeout=PATIENCE)
    menu(page, rows.nth(2), "Rename…")
    page.get_by_role("dialog").get_by_role("textbox").fill("<i>renamed</i>")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    panel.get_by_text("<i>renamed</i>").wait_for(timeout=PATIENCE)
    menu(page, rows.nth(2), "Edit tags…")
    page.get_by_role("dialog").get_by_role("textbox").fill("best, faq")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    panel.get_by_text("best, faq").wait_for(timeout=PATIENCE)
    assert runs.read_meta(some_runs[0])["tags"] == ["best", "faq"]

    menu(page, rows.nth(2), "Move to the bin")
    panel.get_by_text("“<i>renamed</i>” moved to the bin.").wait_for(timeout=PATIENCE)
    page.wait_for_function(f"() => document.querySelectorAll('{PANEL} [data-run]').length === 2", timeout=PATIENCE)
    page.locator(".Toastify__toast").get_by_role("button", name="Undo").click()
    rows.nth(2).wait_for(timeout=PATIENCE)


def menu(page: Any, row: Any, item: str) -> None:
    """Does something by the context menu of a row."""
    row.click(button="right")
    page.get_by_role("menuitem", name=item).click()


@pytest.fixture
def real_run(lab: Any, tiny_model_dir: Path, tmp_path: Path, warm_python: Path) -> Any:
    """A run of a tiny real model that goes on for long, in the Lab's own LLF_HOME."""
    rows = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(40)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    config = {
        "model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "max_steps": 100_000,
        "logging_steps": 1, "save_steps": 500, "per_device_train_batch_size": 4, "val_size": 4, "threads": 1,
    }  # fmt: skip
    run = launch(config, home=lab.home, name="real")
    yield run
    if not run.status().has_ended:
        run.kill()
        run.wait(30, progress=False)


@pytest.mark.launches
def test_a_real_run_is_opened_stopped_resumed_compared_and_killed(page: Any, lab: Any, real_run: Any) -> None:
    panel = open_panel(page, lab)
    row = panel.locator(f"[data-run='{real_run.id}']")
    row.wait_for(timeout=PATIENCE)
    page.wait_for_function(
        f"id => document.querySelector(`{PANEL} [data-run='${{id}}']`)?.textContent.includes('running')",
        arg=real_run.id, timeout=120_000,
    )  # fmt: skip
    row.locator("polyline").wait_for(state="attached", timeout=PATIENCE)  # two losses are a curve

    row.click()
    panel.get_by_role("progressbar").wait_for(timeout=PATIENCE)
    panel.get_by_text("Tokens per second", exact=True).wait_for(timeout=PATIENCE)
    assert "max_steps" in panel.inner_text()
    picture(page, "details")
    panel.get_by_role("button", name="Open monitor").click()
    page.locator(".llf-Monitor .js-plotly-plot").first.wait_for(timeout=120_000)
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 2  # below the cell that was there

    panel.get_by_role("button", name="Runs").click()
    menu(page, row, "Save checkpoint")
    panel.get_by_text("Checkpoint requested.").wait_for(timeout=PATIENCE)
    menu(page, row, "Stop with checkpoint")
    # A notification of eight seconds.
    page.locator(".jp-toast-message, .Toastify__toast", has_text="Stopped at step").first.wait_for(timeout=PATIENCE)
    assert real_run.wait(120, progress=False).state == "stopped"

    page.wait_for_function(
        f"id => document.querySelector(`{PANEL} [data-run='${{id}}']`)?.textContent.includes('stopped')",
        arg=real_run.id, timeout=PATIENCE,
    )  # fmt: skip
    resume(page, panel, row)
    page.wait_for_function(
        f"id => document.querySelector(`{PANEL} [data-run='${{id}}']`)?.textContent.includes('running')",
        arg=real_run.id, timeout=120_000,
    )  # fmt: skip
    assert real_run.status().attempt == 2
    open_the_monitor_that_is_there(page, row)
    menu(page, row, "Kill…")
    page.get_by_role("dialog").get_by_role("button", name="Kill now").click()
    assert real_run.wait(120, progress=False).state == "failed"

    step = runs.Checkpoints(real_run.folder).list()[-1]
    menu(page, row, "Branch from a checkpoint…")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Checkpoint at step")).to_have_value(str(step))
    dialog.get_by_label("Peak learning rate").fill("1e-4")
    dialog.get_by_label("End at step").fill(str(step + 20))
    picture(page, "branch")
    dialog.get_by_role("button", name="Start branch").click()
    new = panel.locator("[data-run]", has_text=f"real from step {step}")
    new.wait_for(timeout=120_000)
    new.filter(has_text="finished").wait_for(timeout=120_000)
    branched = attach(new.get_attribute("data-run"), lab.home)
    assert (branched.status().step, branched.status().total) == (step + 20, step + 20)

    menu(page, new, "Evaluate loss")
    page.locator(".jp-OutputArea-output", has_text="Losses(base=").wait_for(timeout=120_000)


def resume(page: Any, panel: Any, row: Any) -> None:
    """Resumes a stopped run by the button among its details, which says so before the page is painted again."""
    row.click()
    button = panel.get_by_role("button", name="Resume", exact=True)
    button.wait_for(timeout=PATIENCE)
    picture(page, "stopped")
    next_frame = "e => { e.click(); return new Promise(seen => requestAnimationFrame(() => seen(e.textContent))); }"
    assert button.evaluate(next_frame) == "Resuming…"
    picture(page, "resuming")
    panel.get_by_role("button", name="Runs").click()


def open_the_monitor_that_is_there(page: Any, row: Any) -> None:
    """Opens the monitor of a run that was resumed below its monitor: the notebook has one, and still does."""
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    expect(cells).to_have_count(3)  # the resume has a cell of its own, without a monitor
    menu(page, row, "Open monitor")
    expect(page.locator(".llf-Monitor")).to_be_in_viewport()
    expect(page.locator(".llf-Monitor")).to_have_count(1)
    expect(cells).to_have_count(3)
    picture(page, "monitor-again")


def picture(page: Any, name: str) -> None:
    """Kept where somebody wants to look at it."""
    if "LLF_SCREENSHOTS" in os.environ:
        page.screenshot(path=f"{os.environ['LLF_SCREENSHOTS']}/{name}.png")


def test_text_can_be_read_in_both_themes(page: Any, lab: Any, some_runs: Any) -> None:
    panel = open_panel(page, lab)
    panel.locator("[data-run]").nth(2).wait_for(timeout=PATIENCE)
    for theme in ("Light", "Dark"):
        set_theme(page, f"JupyterLab {theme}")
        assert page.evaluate(CONTRAST, PANEL) >= 4.5, theme
        picture(page, f"panel-{theme}")


# The least contrast (WCAG 2) of any text in the panel against what is painted behind it.
CONTRAST = """
selector => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const paint = (colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => [r, g, b]
    .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => getComputedStyle(element).backgroundColor;
  const grounds = element => element ? [...grounds(element.parentElement), ground(element)] : [];
  let least = 21;
  const texts = document.createTreeWalker(document.querySelector(selector), NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    if (!node.textContent.trim()) continue;
    const behind = grounds(node.parentElement);
    const [a, b] = [paint(behind), paint([...behind, getComputedStyle(node.parentElement).color])].map(light);
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
}
"""


def test_the_panel_is_in_notebook_7_too(page: Any, lab: Any, some_runs: Any) -> None:
    lab.notebook("panel.ipynb", "1")
    page.goto(lab.address("panel.ipynb", "notebooks"))
    show_in_notebook_7(page).locator("[data-run]").nth(2).wait_for(timeout=PATIENCE)


def test_a_server_without_llf_is_named(page: Any, lab: Any) -> None:
    page.route("**/llf/api/**", lambda route: route.fulfill(status=404, body="{}"))
    panel = open_panel(page, lab)
    panel.get_by_role("alert").wait_for(timeout=PATIENCE)
    assert "llf/api/version returned 404" in panel.inner_text()
    assert "pip install LLF_FOLDER" in panel.inner_text()
    page.unroute("**/llf/api/**")
    panel.get_by_role("button", name="Try again").click()
    panel.get_by_text("No runs yet").wait_for(timeout=PATIENCE)
