"""Inspect as a reader meets it: tokens with their state, records to look at, another cutoff."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import set_theme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ui.conftest import Lab

EVIL = "<img src=x onerror='window.llfHacked=1'>"

pytestmark = pytest.mark.browser


@pytest.mark.launches
def test_the_data_is_looked_at_token_by_token(
    page: Any, lab: Lab, tiny_model_dir: Path, tmp_path: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    rows = [{"instruction": f"Say {number}. {EVIL}", "output": f"It is {number}."} for number in range(30)]
    rows += [
        {"instruction": "Name it.", "output": "the sea and the ship " * 40},
        rows[4],
        {"instruction": "x", "output": ""},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model_name_or_path": str(tiny_model_dir),
        "dataset": str(tmp_path / "rows.jsonl"),
        "cutoff_len": 256,
        "packing": True,
    }
    lab.notebook("data.ipynb", f"import llf_widgets as llf\nview = llf.Inspect({config!r})\nview")
    lab.open(page, "data.ipynb")
    lab.run_all(page)
    view = page.locator(".llf-Inspect")
    totals = view.get_by_role("region", name="Totals")
    expect(totals).to_contain_text("rows", timeout=120_000)
    # Records, examples, truncated, dropped.
    assert totals.get_by_role("row").nth(1).get_by_role("cell").all_text_contents()[1:5] == ["33", "32", "1", "1"]
    expect(view.get_by_role("button", name="Inspect again")).to_be_hidden()

    tokens = view.get_by_role("region", name="Tokens")
    expect(tokens).to_contain_text("Say 0.")
    assert view.locator("img").count() == 0
    assert page.evaluate("window.llfHacked") is None
    learned = "".join(tokens.locator(".llf-Turn .is-trained").all_text_contents())
    assert learned == "It is 0.<|im_end|>↵"
    group = tokens.get_by_role("group")
    group.focus()
    group.press("ArrowRight")
    expect(tokens.get_by_role("status")).to_contain_text("position")
    expect(tokens.get_by_role("status")).to_contain_text("not in the loss")

    records = view.get_by_role("region", name="Records")
    records.get_by_label("Show").select_option("cut")
    expect(records.get_by_role("row")).to_have_count(2)
    records.get_by_role("button", name="rows line 31").click()
    expect(tokens.locator("header")).to_contain_text("truncated")
    assert tokens.locator(".llf-Turn .is-truncated").count() > 0
    records.get_by_label("Search texts").fill("say 7.")
    records.get_by_label("Search texts").press("Enter")
    records.get_by_role("button", name="rows line 8").click()
    expect(tokens).to_contain_text("It is 7.")
    expect(view.get_by_role("region", name="Packed rows")).to_contain_text("% full")

    for name in ("Light", "Dark"):
        set_theme(page, f"JupyterLab {name}")
        assert axe(page, ".llf-Inspect") == []
    set_theme(page, "JupyterLab Light")
    lengths = view.get_by_role("region", name="Lengths")
    lengths.get_by_role("button", name="Use 384").click()
    expect(lengths.get_by_role("row", name="384")).to_contain_text("now", timeout=120_000)
    records.get_by_role("button", name="Drop 1 duplicate").click()
    expect(totals.get_by_role("row").nth(1)).to_contain_text("33", timeout=120_000)
