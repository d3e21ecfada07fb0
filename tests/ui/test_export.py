"""An export as a reader meets it: progress, Stop, the receipt, the folder's path, and what stays without a kernel."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from playwright.sync_api import expect

from llf_widgets.front_end import UNFINISHED
from tests.ui.conftest import set_theme
from tests.ui.test_panel import show_panel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llf_core.runs import RunFolder
    from tests.ui.conftest import Lab

EVIL = "<img src=x onerror='window.llfHacked=1'>"
QUANTIZED = f"""
from llf_widgets.export_view.widget import receipt_json
from llf_core.export import Receipt
rows = [
    {{"quantization": "f16", "bytes": 2.7e8, "kl": 0.0, "perplexity": 12.5, "changed_greedy": 0.0}},
    {{"quantization": "Q8_0", "bytes": 1.45e8, "kl": 0.0012, "perplexity": 12.52, "changed_greedy": 0.004}},
    {{"quantization": "Q4_K_M {EVIL}", "bytes": 1.05e8, "kl": 0.061, "perplexity": 13.4, "changed_greedy": 0.08,
      "tokens_per_second": 143.2}},
]
shown = receipt_json(Receipt("gguf", {{}}, view.receipt.checks, {{}}, tuple(rows), seconds=72.0))
"""
HOLD = """
import time

def hold(*_):
    while not held and (globals().get("view") is None or not view._stop_wanted):
        time.sleep(0.05)
    held.append(True)

held, view = [], None
"""
"""Has an export go on until it is stopped, the first time."""

pytestmark = pytest.mark.browser


@pytest.mark.launches
def test_a_model_is_exported_in_a_cell(
    page: Any, lab: Lab, tiny_model_dir: Path, tmp_path: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    place = tmp_path / "exported"
    call = f"llf.export({str(tiny_model_dir)!r}, format='merged', folder={str(place)!r})"
    held = call.replace("folder=", "progress=hold, folder=")
    lab.notebook("export.ipynb", f"{HOLD}import llf_widgets as llf\nview = {held}\nview", "pass")
    lab.open(page, "export.ipynb")
    lab.run_cell(page, 0)
    view = page.locator(".llf-Export")
    expect(view.get_by_role("progressbar", name="Progress of the export")).to_be_visible(timeout=120_000)
    expect(view.get_by_role("status")).to_have_text("Finding the model…")  # held there
    stop = view.get_by_role("button", name="Stop")
    stop.focus()
    stop.press("Enter")
    expect(view.get_by_role("status")).to_have_text("Stopped. Nothing was written.")
    assert list(tmp_path.iterdir()) == []
    again = view.get_by_role("button", name="Export again")
    again.focus()
    again.press("Enter")

    receipt = view.get_by_role("region", name="Receipt")
    expect(receipt).to_contain_text("checks passed", timeout=120_000)
    expect(receipt.get_by_role("row", name="logits passed")).to_be_visible()
    expect(view.locator(".llf-State")).to_have_text("finished")
    expect(view.locator("code")).to_have_text(str(place))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view.get_by_role("button", name="Copy the path of the folder").click()
    copied = "place => navigator.clipboard.readText().then(text => text === place)"
    page.wait_for_function(copied, arg=str(place))
    assert (place / "receipt.json").is_file()

    # The table of a format with quantizations, whose texts come from files.
    lab.run_cell(page, 1, f"{QUANTIZED}\nview._receipt = shown")
    quantizations = view.get_by_role("region", name="Quantizations")
    expect(quantizations.get_by_role("row")).to_have_count(4)
    expect(quantizations.get_by_role("row", name="Q8_0")).to_contain_text("0.4 %")
    expect(quantizations.get_by_role("img")).to_have_attribute("aria-label", re.compile("^Size and KL divergence. f16"))
    assert view.locator("img").count() == 0
    assert page.evaluate("window.llfHacked") is None
    for name in ("Light", "Dark"):
        set_theme(page, f"JupyterLab {name}")
        assert axe(page, ".llf-Export") == []

    lab.run_cell(page, 0, f"import llf_widgets as llf\nview = {call}\nview")
    expect(view.get_by_role("status")).to_contain_text("is not empty. Expected a new folder")

    other = tmp_path / "other"
    lab.run_cell(page, 0, f"{HOLD}import llf_widgets as llf\nview = {held.replace(str(place), str(other))}\nview")
    expect(stop).to_be_visible()
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel().then(() => null)")
    expect(view.locator(".llf-State")).to_have_text("ended with its kernel")
    expect(view.get_by_role("status")).to_contain_text("Run the cell again.")
    expect(view.get_by_role("button")).to_have_count(0)
    assert axe(page, ".llf-Export") == []
    lab.save(page)
    assert not other.exists()
    saved = nbformat.read(lab.root / "export.ipynb", 4).cells[0].outputs[0].data["text/plain"]
    assert saved.endswith(UNFINISHED)


@pytest.mark.launches
def test_the_panel_evaluates_and_exports_a_run_and_other_pages_show_it(
    page: Any, lab: Lab, tuned_run: RunFolder, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    lab.notebook("given-away.ipynb", "pass")
    lab.open(page, "given-away.ipynb")
    panel = show_panel(page)
    panel.locator(f"[data-run='{tuned_run.id}']").click()
    panel.get_by_role("button", name="Export…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Format").select_option("adapter")
    dialog.get_by_label("In the folder of the run, for download").check()
    dialog.get_by_role("button", name="Export").click()
    export = page.locator(".llf-Export")
    expect(export.locator(".llf-State")).to_have_text("finished", timeout=120_000)
    link = panel.get_by_role("link", name="Download exports/adapter")
    expect(link).to_be_visible()
    with page.expect_download() as download:
        link.click()
    with zipfile.ZipFile(download.value.path()) as packed:
        assert {name.rpartition("/")[2] for name in packed.namelist()} >= {"adapter_model.safetensors", "receipt.json"}

    panel.get_by_role("button", name="Evaluate", exact=True).click()
    evaluation = page.locator(".llf-Evaluation")
    row = evaluation.get_by_role("row", name="Perplexity")
    expect(row).to_contain_text("too few examples", timeout=120_000)
    expect(panel.get_by_text("4 examples").first).to_be_visible()

    lab.save(page)
    other = page.context.new_page()  # Notebook 7 in a second tab, with the same kernel
    other.goto(lab.address("given-away.ipynb", "notebooks"))
    expect(other.locator(".llf-Export .llf-State")).to_have_text("finished", timeout=120_000)
    order = other.get_by_label("Order of the examples")
    order.select_option("worst")
    expect(evaluation.get_by_label("Order of the examples")).to_have_value("worst")
    assert axe(other, ".llf-Evaluation") == []
    assert axe(other, ".llf-Export") == []

    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => null)")
    expect(evaluation.get_by_role("status").first).to_contain_text("Run the cell again to see more examples")
    expect(evaluation.get_by_label("Order of the examples")).to_be_disabled()
    expect(row).to_be_visible()
    expect(export.get_by_role("button", name="Copy the path of the folder")).to_be_enabled()
    book = nbformat.read(lab.root / "given-away.ipynb", 4)
    book.metadata["kernelspec"] = {"name": "nowhere", "display_name": "gone", "language": "python"}
    nbformat.write(book, lab.root / "kept.ipynb")
    other.goto(lab.address("kept.ipynb", "notebooks"))
    saved = other.locator(".llf-SavedView")
    expect(saved).to_have_count(2, timeout=120_000)
    expect(saved.nth(0)).to_contain_text("checks passed")
    expect(saved.nth(1)).to_contain_text("Perplexity")
