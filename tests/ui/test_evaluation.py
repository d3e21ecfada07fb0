"""An evaluation as a reader meets it: a tiny real model beside an adapter of it, with a judge."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.core.evaluation.test_judge import Server, said
from tests.ui.conftest import EVIL, set_theme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ui.conftest import Lab

pytestmark = [pytest.mark.browser, pytest.mark.launches]


def test_models_are_compared_examples_sorted_tokens_shown_and_votes_counted(
    page: Any,
    lab: Lab,
    tiny_model_dir: Path,
    tmp_path: Path,
    axe: Callable[..., list[dict[str, Any]]],
    request: pytest.FixtureRequest,
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapter, data = tmp_path / "tuned", tmp_path / "test.jsonl"
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        LoraConfig(target_modules="all-linear", lora_alpha=64, init_lora_weights=False),
    )
    tuned.save_pretrained(adapter)
    rows = [{"instruction": f"What is {n} plus 1? {EVIL}", "input": "", "output": f"It is {n + 1}."} for n in range(14)]
    data.write_text("\n".join(map(json.dumps, rows)))
    judge = Server([said(json.dumps({"reason": f"Shorter. {EVIL}", "verdict": "A"}))])
    request.addfinalizer(judge.server_close)
    request.addfinalizer(judge.shutdown)
    call = (
        f"llf.Evaluate([{str(tiny_model_dir)!r}, {str(adapter)!r}], on={str(data)!r}, metrics='f1', max_new_tokens=6,"
        f" judge={judge.url!r}, judge_model='strict')"
    )
    lab.notebook("evaluate.ipynb", f"import llf_widgets as llf\nview = {call}\nview")
    lab.open(page, "evaluate.ipynb")
    lab.run_all(page)
    view = page.locator(".llf-Evaluation")
    table = view.get_by_role("table")
    expect(table.get_by_role("rowheader", name="Perplexity")).to_be_visible(timeout=120_000)
    expect(table.get_by_role("columnheader", name="tuned")).to_be_visible()
    expect(table.get_by_role("row", name="Perplexity")).to_contain_text("95 % interval")
    # A judge that always prefers the first answer prefers neither.
    judged = table.get_by_role("row", name="Judge: win rate (strict at 127.0.0.1")
    expect(judged).to_contain_text("50 %")
    expect(judged).to_contain_text("no difference")
    expect(judged).to_contain_text("changed with the order (100 %)")
    assert len(judge.requests) == 28

    examples = view.get_by_role("region", name="Examples")
    expect(examples).to_contain_text("1 to 10 of 14")
    metric, order = (examples.get_by_label(f"{name} of the examples") for name in ("Metric", "Order"))
    metric.select_option("loss")
    order.select_option("worst")
    expect(metric).to_have_value("loss")
    expect(order).to_have_value("worst")
    examples.get_by_role("button", name="Next").click()
    expect(examples).to_contain_text("11 to 14 of 14")
    examples.get_by_role("button", name="Previous").click()
    expect(examples).to_contain_text("1 to 10 of 14")
    first = examples.get_by_role("article").first
    first.get_by_role("button", name="Loss of each token").press("Enter")
    first.get_by_text("tie: changed with the order").click()
    expect(first).to_contain_text(f"Shorter. {EVIL}")
    heat = view.get_by_role("region", name="Loss of each token: example")
    expect(heat.locator("span[title]").first).to_have_attribute("title", re.compile("nats, probability"))
    vote = first.get_by_role("button", name="Better")
    vote.click()
    expect(vote).to_have_attribute("aria-pressed", "true")
    expect(table.get_by_role("row", name="Your votes")).to_contain_text("100 % of 1 vote (1 win)")
    assert page.evaluate("window.llfHacked") is None

    assert axe(page, ".llf-Evaluation") == []
    set_theme(page, "JupyterLab Dark")
    assert axe(page, ".llf-Evaluation") == []
