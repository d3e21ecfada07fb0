"""What is trained and which servers load it: in the form before a start, in the monitor and in the panel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import EVIL, set_theme
from tests.ui.test_panel import PANEL
from tests.ui.test_studio import CELL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ui.conftest import Lab

pytestmark = pytest.mark.browser
SEEN = 120_000


def show_panel(page: Any) -> Any:
    """Shows the panel beside the notebook; returns its locator."""
    page.evaluate("() => window.jupyterapp.shell.activateById('llf-runs')")
    panel = page.locator(PANEL)
    panel.wait_for(state="visible", timeout=SEEN)
    return panel


@pytest.mark.launches
def test_the_form_the_monitor_and_the_panel_say_the_same(
    page: Any, lab: Lab, real: Callable[..., Any], axe: Callable[..., Any], tiny_model_dir: Path
) -> None:
    """Two layers of 64 dimensions, rank 32: q_proj is 64 to 64 and v_proj 64 to 32, so 2 * 32 * 224 are trained."""
    share = f"{2 * 32 * (64 + 64 + 64 + 32):,} of "
    run = real(max_steps=3, lora_rank=32, lora_target="q_proj,v_proj", save_steps=3)
    given = {"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo", "lora_target": "q_proj,v_proj"}
    studio = CELL.replace("Studio()", f"Studio({given | {'lora_rank': 32}!r})")
    lab.notebook("trained.ipynb", studio, f"llf.Monitor({run.id!r})")
    lab.open(page, "trained.ipynb")
    lab.run_all(page)
    found = {}

    def look(view: str, selector: str) -> None:
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            set_theme(page, theme)
            found[f"{view}, {theme}"] = axe(page, selector)

    form, monitor = page.locator(".llf-Studio"), page.locator(".llf-Monitor")
    servers = form.get_by_text("Loads in vLLM: with a setting · llama.cpp: yes · Ollama: yes")
    servers.click(timeout=120_000)
    expect(form.get_by_text("--max-lora-rank 32")).to_be_visible()
    form.get_by_role("button", name="Show what is trained").click()
    expect(form.get_by_text(share)).to_be_visible(timeout=120_000)
    expect(form.get_by_text("--max-lora-rank 32")).to_be_visible()  # what was opened stays open
    table = form.get_by_role("table", name="model.layers")
    expect(table.get_by_role("row", name="layers 0 to 1, each adapter not reached adapter")).to_be_visible()
    expect(form.get_by_role("table", name="Outside the layers")).to_contain_text("model.embed_tokensfrozen")
    look("form", ".llf-Studio")
    form.locator("[data-llf-key='finetuning_type']").select_option("full")
    expect(form.get_by_text("The settings have changed.")).to_be_visible(timeout=SEEN)
    expect(form.get_by_text("The result is a whole model")).to_be_visible()
    expect(table).to_have_count(0)
    form.locator("[data-llf-key='finetuning_type']").select_option("lora")
    expect(table).to_be_visible(timeout=SEEN)  # known, so at once

    assert run.wait(240, progress=False).state == "finished"
    part = monitor.get_by_role("region", name="What is trained")
    part.get_by_text(share).click(timeout=SEEN)
    expect(part.get_by_role("table", name="model.layers")).to_contain_text("not reached")
    expect(part.get_by_text("Loads in vLLM: with a setting · llama.cpp: yes · Ollama: yes")).to_be_visible()
    look("monitor", ".llf-Monitor-trained")

    panel = show_panel(page)
    panel.locator(f"[data-run='{run.id}']").click(timeout=SEEN)
    part = panel.get_by_role("region", name="What is trained")
    part.get_by_text(share).click(timeout=SEEN)
    # There is room for one column: the modules are the rows.
    expect(part.get_by_role("row", name="self_attn.q_proj adapter", exact=True)).to_be_visible()
    look("panel", PANEL)
    assert {view: said for view, said in found.items() if said} == {}


def test_a_closed_list_shows_a_label_and_an_open_one_the_lines(page: Any, lab: Lab) -> None:
    lab.notebook("form.ipynb", CELL)
    lab.open(page, "form.ipynb")
    lab.run_all(page)
    method = page.locator(".llf-Studio [data-llf-key='finetuning_type']")
    text = "select => select.selectedOptions[0].textContent"
    method.wait_for(timeout=120_000)
    assert method.evaluate(text) == "lora (an adapter)"
    line = "Low-rank matrices beside the frozen weights. The method to begin with. (arXiv 2106.09685)"
    expect(method).to_have_accessible_description(line)
    method.focus()
    page.keyboard.press("Space")
    assert method.evaluate(text).startswith("lora (an adapter): Low-rank matrices")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert method.evaluate(text) == "lora (an adapter)"
    method.select_option("full")
    expect(page.locator(".llf-Studio")).to_contain_text("Trains every weight.", timeout=SEEN)
    assert method.evaluate(text) == "full (every parameter)"
    optimizers = page.locator(".llf-Studio [data-llf-key='optim']")
    page.get_by_role("button", name="more fields in Training").click()
    galore = optimizers.locator("option[value='galore']")
    expect(galore).to_be_enabled(timeout=SEEN)
    method.select_option("lora")
    expect(galore).to_be_disabled(timeout=SEEN)
    expect(galore).to_contain_text("not available. GaLore is for the model's own weights")


def test_names_of_a_model_are_never_markup(page: Any, lab: Lab) -> None:
    from llf_core import runs

    config = "model_name_or_path: tiny\nstage: sft\nfinetuning_type: lora\ndataset: d\n"
    folder = runs.create_run(config, "odd", lab.home)
    writer = runs.RunWriter(folder)
    row = {"module": EVIL, "stack": EVIL, "states": {"adapter": [[0, 1]]}, "parameters": 9, "trained": 1}
    rows = [row, row | {"stack": "", "states": {"frozen": [[-1, -1]]}}]
    writer.event("model", parameters=9, trainable=1, model_type=EVIL, map=rows)
    writer.close("finished", None)
    (folder.path / "output").mkdir()
    (folder.path / "output" / "adapter_config.json").write_text(json.dumps({"peft_type": EVIL}))
    lab.notebook("odd.ipynb", f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    lab.open(page, "odd.ipynb")
    lab.run_all(page)
    part = page.locator(".llf-Monitor").get_by_role("region", name="What is trained")
    part.get_by_text("1 of 9 parameters").click(timeout=120_000)
    expect(part.get_by_role("table", name=EVIL)).to_be_visible()
    part.locator(".llf-Servers summary").click()
    panel = show_panel(page)
    panel.locator(f"[data-run='{folder.id}']").click(timeout=SEEN)
    panel.get_by_text("1 of 9 parameters").click(timeout=SEEN)
    assert page.locator(".llf-Monitor img, .llf-RunsPanel img").count() == 0
    assert page.evaluate("window.llfHacked") is None
