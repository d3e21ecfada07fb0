"""Text of data sets and models is text: no view in a browser makes an element of it or runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ui.conftest import Lab

EVIL = "<img src=x onerror='window.llfHacked=1'><script>window.llfHacked=2</script>[a](javascript:window.llfHacked=3)"

pytestmark = pytest.mark.browser


@pytest.fixture
def page(reused_page: Any) -> Any:
    """JupyterLab is loaded once for all tests here."""
    return reused_page


def clean(page: Any, place: Any) -> None:
    """Nothing ran, and nothing became an element."""
    assert place.locator("img, script, a").count() == 0
    assert page.evaluate("window.llfHacked") is None


@pytest.mark.launches
def test_a_data_set_is_looked_at_as_text(page: Any, lab: Lab, tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = [{"instruction": EVIL, "output": f"Answer: {EVIL}"}, {"instruction": EVIL, "output": ""}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + EVIL + "\n")
    config = {"model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.jsonl"), "cutoff_len": 512}
    lab.notebook("data.ipynb", f"import llf_widgets as llf\nllf.Studio({config!r})")
    lab.open(page, "data.ipynb")
    lab.run_all(page)
    form = page.locator(".llf-Studio")
    form.get_by_role("button", name="Preview data").click(timeout=120_000)
    example = form.get_by_role("article", name="Example 1")
    expect(example).to_contain_text(f"Answer: {EVIL}", timeout=120_000)
    clean(page, example)
    clean(page, form.locator(".llf-Preview"))


def test_answers_of_models_are_shown_as_text(page: Any, lab: Lab) -> None:
    cell = (
        "from llf_widgets.evaluation_calls import Answers\nfrom llf_core.evaluation.answers import Answer\n"
        f"text = {EVIL!r}\nAnswers([Answer(text, text, 'tuned ' + text)])"
    )
    lab.notebook("answers.ipynb", cell)
    lab.open(page, "answers.ipynb")
    lab.run_all(page)
    table = page.locator(".jp-OutputArea-output table")
    expect(table).to_contain_text(f"tuned {EVIL}", timeout=120_000)
    clean(page, table)
