"""A real run that is told what to do in a browser: steering, watched prompts, rows behind the curve, comparing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import EVIL, PATIENCE, set_theme
from tests.ui.test_monitor import head, show, state
from tests.ui.test_monitor_survives import logged

pytestmark = [pytest.mark.browser, pytest.mark.launches]


@pytest.fixture
def page(reused_page):
    """JupyterLab is loaded once for all tests here."""
    return reused_page


def axis(title, which):
    """An axis of Compare's chart in the layout, as JavaScript; `which` is `xaxis` or `yaxis`."""
    layout = "document.querySelector('.llf-Compare .js-plotly-plot')?.layout"
    return f"{layout}?.[{layout}.meta.charts.find(({{title}}) => title === '{title}').{which}]"


def picture(view, name):
    """Kept where somebody wants to look at it."""
    if folder := os.environ.get("LLF_SCREENSHOTS"):
        view.page.set_viewport_size({"width": 1280, "height": 2400})
        view.page.wait_for_timeout(1500)
        view.screenshot(path=str(Path(folder) / f"{name}.png"))


def answers_to_changes(run):
    """What the trainer has answered to changes."""
    return [event for event in run.events() if (event["type"], event.get("request")) == ("answer", "set")]


def end_soon(page, run):
    """Sets at which step a run ends, and returns it; its trainer stands still meanwhile: it refuses a past step."""
    trainer, answered = json.loads(run.folder.status.read_text())["pid"], len(answers_to_changes(run))
    os.kill(trainer, signal.SIGSTOP)
    try:
        last = logged(run.folder.path) + 50
        page.get_by_role("textbox", name="End at step").fill(str(last))
        page.get_by_role("button", name="Set end at step").click()
        wait_for(page, lambda: any(run.folder.control.iterdir()))
    finally:
        os.kill(trainer, signal.SIGCONT)
    wait_for(page, lambda: len(answers_to_changes(run)) > answered)
    assert answers_to_changes(run)[-1]["ok"]
    return last


def wait_for(page, condition):
    """Waits for another process, while the page goes on."""
    until = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < until
        page.wait_for_timeout(50)


def test_a_live_run_does_what_it_is_told(page, lab, real):
    run = real()
    show(page, lab, run.id)
    view = head(page)

    rate = page.get_by_role("textbox", name="Peak learning rate")
    expect(rate).to_have_value("1e-3")
    rate.fill("fast")
    page.get_by_role("button", name="Set peak learning rate").click()
    expect(view).to_contain_text('Peak learning rate is "fast". Expected a number.')
    rate.fill("2")
    rate.press("Enter")
    expect(view).to_contain_text("learning_rate is 2. Expected a number above 0 and at most 1.")
    rate.fill("3e-4")
    rate.press("Enter")
    expect(view).to_contain_text("Learning rate 1e-3 → 3e-4 from step")
    marks = (
        "document.querySelector('.llf-Monitor .js-plotly-plot').data.find(({name}) => name === 'change labels').text"
    )
    page.wait_for_function(f"() => {marks}?.some(text => text.includes('learning rate'))", timeout=PATIENCE)

    page.get_by_role("button", name="Evaluate now").click()
    expect(view).to_contain_text("The evaluation loss is")
    page.get_by_role("button", name="Generate samples now").click()
    expect(view).to_contain_text("Generated at step")

    answers = page.get_by_role("region", name="Watched prompts")
    expect(answers).to_contain_text("base")
    page.get_by_role("button", name="Watch a prompt…").click()
    page.get_by_label("The model completes this prompt at every checkpoint").fill(EVIL)
    page.get_by_role("button", name="Watch prompt", exact=True).click()
    expect(page.get_by_role("combobox", name="Prompt", exact=True)).to_contain_text(f"2 of 2: {EVIL}")
    page.get_by_role("button", name="Generate samples now").click()
    slider = answers.get_by_role("slider")
    expect(slider).to_be_visible(timeout=120_000)
    slider.press("Home")
    expect(page.locator(".llf-Answers-rows").first).to_contain_text("step")

    page.get_by_role("button", name="Show rows…").click()
    rows = page.get_by_role("table", name="Examples and their losses")
    expect(rows).to_be_in_viewport(timeout=120_000)
    expect(rows).to_contain_text("It is", timeout=120_000)
    step = page.get_by_role("textbox", name="step", exact=True)
    step.fill("5")
    step.press("Enter")
    expect(rows.get_by_role("row")).to_have_count(5)  # a head and four rows
    picture(view, "steering-light")
    set_theme(page, "JupyterLab Dark")
    picture(view, "steering-dark")

    last = end_soon(page, run)
    expect(state(page)).to_have_text("finished", timeout=240_000)
    assert run.status().step == last
    assert page.evaluate("window.llfHacked") is None


def test_runs_are_compared(page, lab, real):
    more = {"max_steps": 24, "eval_strategy": "steps", "eval_steps": 6, "save_strategy": "no"}
    first, second = real(**more), real(**more, lora_rank=32, learning_rate=5e-3)
    for run in (first, second):
        assert run.wait(120, progress=False).state == "finished"
    lab.notebook("compare.ipynb", f"import llf_widgets as llf\nllf.Compare([{first.id!r}, {second.id!r}])")
    lab.open(page, "compare.ipynb")
    lab.run_all(page)
    view = page.locator(".llf-Compare").first
    table = page.get_by_role("table", name="Runs side by side")
    expect(table).to_contain_text("lora_rank", timeout=120_000)
    expect(table.get_by_role("row", name="learning_rate")).to_contain_text("5e-3")
    page.get_by_label("Over", exact=True).select_option("tokens")
    page.wait_for_function(f"() => {axis('Training loss', 'xaxis')}?.title.text === 'tokens'", timeout=PATIENCE)
    page.get_by_label("log scale").check()
    page.wait_for_function(f"() => {axis('Evaluation loss', 'yaxis')}.type === 'log'", timeout=PATIENCE)
    expect(page.get_by_text("Completions of the same prompts")).to_be_visible()
    picture(view, "compare-light")
    set_theme(page, "JupyterLab Dark")
    picture(view, "compare-dark")
