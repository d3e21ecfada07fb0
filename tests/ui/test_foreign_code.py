"""Code that a stranger sends along, as a reader meets it: its source first, and a button."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core.runs import read_status
from tests.hostile import evil_run
from tests.ui.conftest import set_theme
from tests.ui.test_panel import open_panel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ui.conftest import Lab

pytestmark = pytest.mark.browser
HTML = "# <img src=x onerror='window.llfHacked=1'>"


@pytest.fixture
def page(reused_page: Any) -> Any:
    """JupyterLab is loaded once for all tests here."""
    return reused_page


@pytest.mark.launches
def test_the_texts_of_examples_wait_for_the_readers_leave(
    page: Any, lab: Lab, tiny_model_dir: Path, tmp_path: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    mark = tmp_path / "it-ran"
    run = evil_run(tiny_model_dir, mark, home=lab.home)
    source = run.data / "model" / "evil.py"
    source.write_text(f"{HTML}\n{source.read_text()}")
    lab.notebook("rows.ipynb", f"import llf_widgets as llf\nllf.Examples({run.id!r})")
    lab.open(page, "rows.ipynb")
    lab.run_all(page)
    view = page.locator(".llf-Examples")
    notice = view.get_by_role("group", name="Code to review")
    expect(notice).to_contain_text("evil.py", timeout=120_000)
    expect(notice).to_contain_text(HTML)
    expect(view.get_by_role("row", name="#1 ")).to_contain_text("3.000", timeout=120_000)
    assert notice.locator("img").count() == 0
    assert page.evaluate("window.llfHacked") is None
    for name in ("Light", "Dark"):
        set_theme(page, f"JupyterLab {name}")
        assert axe(page, ".llf-Examples") == []
    assert not mark.exists()
    notice.get_by_role("button", name="Allow this code and show the texts").click()
    expect(view).to_contain_text("Say ", timeout=180_000)
    expect(notice).to_have_count(0)
    assert mark.exists()


@pytest.mark.launches
def test_a_run_made_elsewhere_is_resumed_only_when_its_code_is_allowed(
    page: Any, lab: Lab, tiny_model_dir: Path, tmp_path: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    mark = tmp_path / "it-ran"
    run = evil_run(tiny_model_dir, mark, "stopped", home=lab.home)
    shutil.rmtree(run.checkpoints)
    lab.notebook("monitor.ipynb", f"import llf_widgets as llf\nllf.Monitor({run.id!r})")
    lab.open(page, "monitor.ipynb")
    lab.run_all(page)
    view = page.locator(".llf-Monitor").first
    resume = view.get_by_role("button", name="Restart")
    resume.click(timeout=120_000)
    notice = view.get_by_role("group", name="Code to review")
    expect(notice).to_contain_text("code/vowels.py", timeout=120_000)
    expect(notice).to_contain_text("evil.py")
    assert axe(page, ".llf-ForeignCode") == []
    notice.get_by_role("button", name="Cancel").click()
    expect(notice).to_have_count(0)
    assert read_status(run).state == "stopped"
    assert not mark.exists()
    resume.click()
    notice.get_by_role("button", name="Allow this code and resume").click(timeout=120_000)
    expect(view.locator(".llf-State").first).to_contain_text("finished", timeout=120_000)
    assert mark.exists()


def test_the_panel_shows_the_code_of_a_run_before_it_is_resumed(
    page: Any, lab: Lab, tiny_model_dir: Path, tmp_path: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    mark = tmp_path / "it-ran"
    run = evil_run(tiny_model_dir, mark, "stopped", home=lab.home)
    source = run.data / "model" / "evil.py"
    source.write_text(f"{HTML}\n{source.read_text()}")
    row = open_panel(page, lab).locator(f'[data-run="{run.id}"]')
    row.click(button="right")
    page.get_by_role("menuitem", name="Resume").click()
    dialog = page.get_by_role("dialog")
    for name in ("code/vowels.py", "evil.py"):
        expect(dialog.locator("summary", has_text=name)).to_be_visible(timeout=120_000)
    expect(dialog).to_contain_text(f"The model, in {run.data / 'model'} (SHA-256 ")
    expect(dialog).to_contain_text(HTML)
    assert dialog.locator("img").count() == 0
    assert page.evaluate("window.llfHacked") is None
    for name in ("Light", "Dark"):
        set_theme(page, f"JupyterLab {name}")
        assert axe(page, ".llf-Code") == []
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    assert read_status(run).state == "stopped"
    assert not mark.exists()


@pytest.mark.launches
def test_a_model_is_evaluated_and_exported_only_when_its_code_is_allowed(
    page: Any, lab: Lab, tiny_model_dir: Path, tmp_path: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    mark, place = tmp_path / "it-ran", tmp_path / "exported"
    model = f"{evil_run(tiny_model_dir, mark, home=lab.home).id}@base"
    data = tmp_path / "rows.json"
    data.write_text('[{"instruction": "Say 1.", "output": "1"}, {"instruction": "Say 2.", "output": "2"}]')
    lab.notebook(
        "allow.ipynb",
        f"import llf_widgets as llf\nllf.Evaluate({model!r}, on={str(data)!r})",
        f"llf.export({model!r}, folder={str(place)!r})",
    )
    lab.open(page, "allow.ipynb")
    lab.run_all(page)
    evaluation, export = page.locator(".llf-Evaluation"), page.locator(".llf-Export")
    for view, purpose in ((evaluation, "Allow this code and evaluate"), (export, "Allow this code and export")):
        notice = view.get_by_role("group", name="Code to review")
        expect(notice).to_contain_text("evil.py", timeout=120_000)
        expect(notice.get_by_role("button", name=purpose)).to_be_visible()
    for selector in (".llf-Evaluation", ".llf-Export"):
        assert axe(page, selector) == []
    assert not mark.exists()
    assert not place.exists()
    evaluation.get_by_role("button", name="Allow this code").press("Enter")
    expect(evaluation.get_by_role("rowheader", name="Perplexity")).to_be_visible(timeout=120_000)
    assert mark.exists()
    export.get_by_role("button", name="Allow this code").press("Enter")
    expect(export.locator(".llf-State")).to_have_text("finished", timeout=120_000)
    expect(page.get_by_role("group", name="Code to review")).to_have_count(0)
    assert (place / "receipt.json").is_file()
