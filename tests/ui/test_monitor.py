"""The monitor as a reader meets it: JupyterLab, a live run, a busy kernel, reloads and restarts."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

TOY = Path(__file__).with_name("toy_trainer.py")
POINTS = (
    "() => { const g = document.querySelector('.llf-Monitor .js-plotly-plot'); return g?.data?.[0]?.x?.length ?? 0; }"
)
FIRST_STEPS = 3
NUMBERS = count(1)


@pytest.fixture
def live(lab):
    """A run of ten minutes in the Lab's own LLF_HOME; ended with the test."""
    process = subprocess.Popen(
        [sys.executable, str(TOY), str(lab.home), "3000", "5"], stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()


def state_of(lab, run_id):
    return json.loads((lab.home / "runs" / run_id / "status.json").read_text())["state"]


def wait_for_points(page, more_than):
    page.wait_for_function(f"n => ({POINTS})() > n", arg=more_than, timeout=30_000)
    return page.evaluate(POINTS)


def show(page, lab, live, *more):
    """A notebook with a Monitor of the run, its curve drawn; further cells run behind it."""
    name = f"monitor-{next(NUMBERS)}.ipynb"
    path = lab.notebook(name, f"import llf_widgets as llf\nllf.Monitor({live!r})", *more)
    lab.open(page, name)
    lab.run_all(page)
    wait_for_points(page, FIRST_STEPS)
    return path


def head(page):
    return page.locator(".llf-Monitor").first


def state(page):
    return page.locator(".llf-Monitor .llf-State").first


def test_a_live_run_is_shown_and_steered_while_the_kernel_sleeps(page, lab, live):
    show(page, lab, live, "import time; time.sleep(40)")
    first = page.evaluate(POINTS)
    assert wait_for_points(page, first + 5) > first + 5
    bar = page.get_by_role("progressbar", name="Progress of smollm2-sft-lora")
    assert int(bar.get_attribute("aria-valuenow")) > FIRST_STEPS
    assert bar.get_attribute("aria-valuemax") == "3000"
    expect(head(page)).to_contain_text("smollm2-135m-instruct, LoRA rank 8, alpaca_en_demo (949 examples)")
    expect(head(page)).to_contain_text("remaining")
    expect(state(page)).to_have_text("running")

    page.get_by_role("button", name="Checkpoint now").click()
    expect(head(page)).to_contain_text("Checkpoint is asked through the Jupyter server, within 1 s.")
    expect(head(page).locator(".llf-Events")).to_contain_text("checkpoint asked by monitor", timeout=10_000)

    page.get_by_role("button", name="Kill…").click()
    expect(page.get_by_role("button", name="Keep it going")).to_be_focused()
    page.get_by_role("button", name="Keep it going").click()
    expect(page.get_by_role("button", name="Kill…")).to_be_visible()
    assert state_of(lab, live) == "running"

    page.get_by_role("button", name="Stop with checkpoint").click()
    expect(state(page)).to_have_text("stopped", timeout=10_000)
    kernel = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status"
    assert page.evaluate(kernel) == "busy"
    assert state_of(lab, live) == "stopped"
    expect(head(page)).to_contain_text("Stopped at step")
    expect(page.get_by_role("button", name="Resume from")).to_be_visible()
    lines = (lab.home / "runs" / live / "events.jsonl").read_text().splitlines()
    requests = [event for event in map(json.loads, lines) if event["type"] == "request"]
    assert [(event["request"], event["by"]) for event in requests] == [
        ("checkpoint", "monitor"),
        ("stop", "monitor"),
    ]


def test_without_the_server_the_kernel_is_asked(page, lab, live):
    page.route("**/llf/api/runs/**", lambda route: route.fulfill(status=404, body="{}"))
    show(page, lab, live)
    page.get_by_role("button", name="Checkpoint now").click()
    said = "Checkpoint is asked through the kernel; the Jupyter server answers 404"
    expect(head(page)).to_contain_text(said, timeout=10_000)
    page.get_by_role("button", name="Stop with checkpoint").click()
    expect(state(page)).to_have_text("stopped", timeout=10_000)


def test_reload_shows_what_was_streamed_since(page, lab, live):
    show(page, lab, live)
    before = wait_for_points(page, FIRST_STEPS + 5)
    lab.save(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    lab.settle(page)
    assert wait_for_points(page, before) > before
    expect(state(page)).to_have_text("running")


def test_a_restarted_kernel_is_said_and_the_view_comes_back(page, lab, live):
    show(page, lab, live)
    before = page.evaluate(POINTS)
    page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart().then(() => null)"
    )
    lost = page.get_by_text("This view has lost its kernel; the run goes on.")
    expect(lost).to_be_visible(timeout=20_000)
    lab.run_all(page)
    expect(lost).to_have_count(0, timeout=30_000)
    assert wait_for_points(page, before) > before
    assert state_of(lab, live) == "running"


def test_two_notebooks_show_one_run(page, browser, lab, live):
    context = browser.new_context()
    second = context.new_page()
    for one in (page, second):
        show(one, lab, live)
    page.get_by_role("button", name="Stop with checkpoint").click()
    for one in (page, second):
        expect(state(one)).to_have_text("stopped", timeout=10_000)
    context.close()


def test_the_saved_notebook_speaks_without_a_kernel(page, lab, live):
    path = show(page, lab, live)
    page.get_by_role("button", name="Stop with checkpoint").click()
    expect(state(page)).to_have_text("stopped", timeout=10_000)
    expect(page.locator(".jp-RenderedPlotly")).to_have_count(1, timeout=10_000)
    expect(page.locator(".jp-RenderedPlotly")).to_be_hidden()  # beside the live view it would say everything twice
    lab.save(page)
    _, static = [output["data"] for output in nbformat.read(path, 4).cells[0].outputs]
    assert {"image/png", "text/html", "text/plain", "application/vnd.plotly.v1+json"} == set(static)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => null)")
    page.reload()
    expect(page.locator(".jp-RenderedPlotly img")).to_be_visible(timeout=60_000)


def test_names_are_never_html(page, lab):
    from llf_core.runs import RunWriter, create_run

    evil = "<img src=x onerror='window.llfHacked=1'>"
    folder = create_run("model_name_or_path: m\n", evil, lab.home)
    writer = RunWriter(folder)
    writer.metric(1, {"loss": 1.0})
    writer.event("warning", message=evil)
    folder.log.write_text(evil)
    writer.close("failed", f"Because of {evil}.")
    name = "evil.ipynb"
    lab.notebook(name, f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    lab.open(page, name)
    lab.run_all(page)
    expect(head(page)).to_contain_text(f"Because of {evil}.", timeout=30_000)
    expect(head(page).get_by_role("alert").first).to_contain_text("Error")
    assert page.evaluate("window.llfHacked") is None
