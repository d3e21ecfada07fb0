"""The forecast in the form, as a reader sees it: it follows each key, and a click makes the run fit."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import settled
from tests.ui.test_studio import CELL, open_studio

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ui.conftest import Lab

pytestmark = pytest.mark.browser


@pytest.fixture
def page(reused_page: Any) -> Any:
    """JupyterLab is loaded once for all tests here."""
    return reused_page


SIZES = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
SMALL_GPU = """
from llf_core.estimate import Device, fit_check
gpu = Device("cuda", "NVIDIA A10", 16 << 30, 16 << 30, bf16=True)
fit_check.find_devices = lambda: (gpu,)
import llf_widgets as llf
llf.Studio({{"model_name_or_path": {model!r}, "dataset": "llf_demo", "lora_rank": 64}})
"""
WATCH = """() => {
    const text = () => document.querySelector('.llf-Fit-key').textContent;
    let begun = null, before = text();
    window.llfTook = [];
    document.addEventListener('keydown', () => { begun = performance.now(); before = text(); }, {capture: true});
    new MutationObserver(() => {
        if (begun === null || text() === before) return;
        window.llfTook.push(performance.now() - begun);
        begun = null;
    }).observe(document.querySelector('.llf-Fit'), {subtree: true, childList: true, characterData: true});
}"""
"""Keeps the milliseconds from each key to the change of the strip's text in the page's document."""
TIMES = 3


def test_the_forecast_follows_each_key(page: Any, lab: Lab) -> None:
    """With `-s` it writes the milliseconds from a key to the forecast: at most 100 on a machine without other work."""
    form = open_studio(page, lab, "fit.ipynb")
    strip = form.get_by_role("region", name="Forecast")
    expect(strip).to_contain_text("adapters 9.77 MB")
    field = form.get_by_label("LoRA rank", exact=True)
    field.focus()
    page.keyboard.press("End")
    page.evaluate(WATCH)
    for pressed, adapters in (("0", "97.7 MB"), ("Backspace", "9.77 MB")) * TIMES:  # 80, and 8 again
        page.keyboard.press(pressed)
        expect(strip).to_contain_text(f"adapters {adapters}")
    expect(field).to_be_focused()  # what is typed is not an edit yet
    taken = page.evaluate("window.llfTook")
    sys.stdout.write(f"milliseconds from a key to the forecast: {[round(one) for one in taken]}\n")
    page.keyboard.press("Tab")
    expect(form.get_by_label("Configuration as YAML")).not_to_have_value(re.compile("lora_rank: 80"))


def test_a_click_makes_it_fit_and_another_undoes_it(page: Any, lab: Lab, tmp_path: Path, axe: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SIZES))
    form = open_studio(page, lab, "fit_change.ipynb", SMALL_GPU.format(model=str(tmp_path)))
    strip = form.get_by_role("region", name="Forecast")
    expect(strip.get_by_role("status").first).to_contain_text(
        re.compile(r"Does not fit: .* GB of 15\.5 GB usable \(17\.2 GB free\)")
    )
    bar = strip.get_by_role("img")
    expect(bar).to_have_attribute("aria-label", re.compile(r"Memory .* of 17.2 GB free: weights 13.5 GB, adapters"))
    change = strip.get_by_role("button", name="Quantize the frozen weights")
    change.focus()
    page.keyboard.press("Enter")
    expect(strip.get_by_role("status").first).to_contain_text("Fits: ")
    expect(form.get_by_label("Configuration as YAML")).to_have_value(re.compile("quantization_bit: "))
    assert axe(page, ".llf-Fit") == []
    strip.get_by_role("button", name="Undo “Quantize the frozen weights”").click()
    expect(strip.get_by_role("status").first).to_contain_text("Does not fit: ")
    expect(form.get_by_label("Configuration as YAML")).not_to_have_value(re.compile("quantization_bit: "))
    widths = "() => [...document.querySelectorAll('.llf-Fit-bar > i')].map(one => one.getBoundingClientRect().width)"
    # Most of it are the weights.
    settled(page, lambda: page.evaluate(widths), lambda found: found[0] > 2 * sum(found[1:7]))
    page.set_viewport_size({"width": 700, "height": 900})
    inside = "() => { const one = document.querySelector('.llf-Fit'); return one.scrollWidth <= one.clientWidth; }"
    page.wait_for_function(inside)


ENDLESS = """
import time
from llf_widgets.forms.fit_strip import Measurement
Measurement._measure = lambda *_: time.sleep(3600)
"""
"""Has a measurement go on until its kernel ends."""


def test_nothing_is_left_to_click_when_the_kernel_is_gone(page: Any, lab: Lab) -> None:
    form = open_studio(page, lab, "fit_lost.ipynb", f"{ENDLESS}{CELL}")
    strip = form.get_by_role("region", name="Forecast")
    strip.get_by_role("button", name="Measure").click()
    cancel = strip.get_by_role("button", name="Cancel")
    expect(cancel).to_be_visible()
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel().then(() => null)")
    expect(strip.get_by_role("button", name="Measure")).to_be_disabled()
    expect(cancel).to_be_hidden()
    expect(strip).to_contain_text("adapters 9.77 MB")  # what was known stays
