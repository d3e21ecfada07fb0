"""The monitor where a real trainer is not needed; `test_quickstart.py` has one."""

from __future__ import annotations

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


def test_without_the_server_the_kernel_is_asked(page, lab, live):
    page.route("**/llf/api/runs/**", lambda route: route.fulfill(status=404, body="{}"))
    show(page, lab, live)
    page.get_by_role("button", name="Checkpoint now").click()
    said = "Checkpoint is asked through the kernel; the Jupyter server answers 404"
    expect(head(page)).to_contain_text(said, timeout=10_000)
    page.get_by_role("button", name="Stop with checkpoint").click()
    expect(state(page)).to_have_text("stopped", timeout=10_000)


def test_a_kernel_with_another_home_says_so(page, lab, tmp_path):
    process = subprocess.Popen([sys.executable, str(TOY), str(tmp_path), "8", "5"], stdout=subprocess.PIPE, text=True)
    run = process.stdout.readline().strip()
    lab.notebook(
        "elsewhere.ipynb",
        f"import os; os.environ['LLF_HOME'] = {str(tmp_path)!r}",
        f"import llf_widgets as llf\nllf.Monitor({run!r})",
    )
    lab.open(page, "elsewhere.ipynb")
    lab.run_all(page)
    expect(head(page)).to_contain_text(
        f"This kernel writes runs to {tmp_path / 'runs'}, the panel reads", timeout=30_000
    )
    process.kill()
    process.wait()


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


def test_the_charts_of_an_ended_run_are_as_wide_as_its_view(page, lab):
    from llf_core.runs import RunWriter, create_run

    folder = create_run("model_name_or_path: m\n", "wide", lab.home)
    writer = RunWriter(folder)
    writer.metric(1, {"loss": 1.0})
    writer.close("finished")
    lab.notebook("wide.ipynb", f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    lab.open(page, "wide.ipynb")
    lab.run_all(page)
    for width in (1500, 1280):
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_function(
            "() => { const plot = document.querySelector('.llf-Monitor .js-plotly-plot');"
            " const drawn = plot?.querySelector('.main-svg')?.clientWidth;"
            " const room = document.querySelector('.llf-Monitor')?.clientWidth;"
            " return drawn > 100 && Math.abs(room - drawn) < 20; }",
            timeout=30_000,
        )


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
