"""The rows behind a curve as a reader meets them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from playwright.sync_api import expect

from llf_core.runs import RunWriter, create_run, status
from tests.ui.conftest import set_theme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ui.conftest import Lab

pytestmark = pytest.mark.browser


@pytest.mark.launches
def test_rows_are_named_by_their_lines_and_can_be_read_in_both_themes(
    page: Any, lab: Lab, tiny_model_dir: Path, tmp_path: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    rows = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = {"model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.jsonl"), "stage": "sft"}
    folder = create_run(yaml.safe_dump(config), "rows", lab.home)
    writer = RunWriter(folder)
    for step in range(1, 11):
        writer.metric(step, {"loss": 2.0 / step})
        writer.examples(step, [step, step + 10], [9.0 / step, 12.5 / step], [3, 5])
    status.update(folder, state="finished", step=10, total=10)
    lab.notebook("rows.ipynb", f"import llf_widgets as llf\nllf.Examples({folder.id!r})")
    lab.open(page, "rows.ipynb")
    lab.run_all(page)
    view = page.locator(".llf-Examples")
    expect(view).to_contain_text("It is 1.", timeout=120_000)
    expect(view.get_by_role("row", name="line 2 ")).to_contain_text("3.000")
    for name in ("Light", "Dark"):
        set_theme(page, f"JupyterLab {name}")
        assert axe(page, ".llf-Examples") == []
