"""An export as a reader meets it: progress, Stop, the receipt, and the folder's path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import set_theme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ui.conftest import Lab

EVIL = "<img src=x onerror='window.llfHacked=1'>"
QUANTIZED = f"""
from llf_widgets.export_view.tables import receipt_json
from llf_core.export import Receipt
rows = [
    {{"quantization": "f16", "bytes": 2.7e8, "kl": 0.0, "perplexity": 12.5, "changed_greedy": 0.0}},
    {{"quantization": "Q8_0", "bytes": 1.45e8, "kl": 0.0012, "perplexity": 12.52, "changed_greedy": 0.004}},
    {{"quantization": "Q4_K_M {EVIL}", "bytes": 1.05e8, "kl": 0.061, "perplexity": 13.4, "changed_greedy": 0.08,
      "tokens_per_second": 143.2}},
]
shown = receipt_json(Receipt("gguf", {{}}, view.receipt.checks, {{}}, tuple(rows), seconds=72.0))
"""

pytestmark = pytest.mark.browser


@pytest.mark.launches
def test_a_model_is_exported_in_a_cell(
    page: Any, lab: Lab, tiny_model_dir: Path, tmp_path: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    place = tmp_path / "exported"
    call = f"llf.export({str(tiny_model_dir)!r}, format='merged', folder={str(place)!r})"
    lab.notebook("export.ipynb", f"import llf_widgets as llf\nview = {call}\nview", "pass")
    lab.open(page, "export.ipynb")
    lab.run_cell(page, 0)
    view = page.locator(".llf-Export")
    expect(view.get_by_role("progressbar", name="Progress of the export")).to_be_visible(timeout=60_000)
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
    assert page.evaluate("() => navigator.clipboard.readText()") == str(place)
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
