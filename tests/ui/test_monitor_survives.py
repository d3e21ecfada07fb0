"""Whatever happens to the page, the kernel and the server, a monitor shows what the run's folder holds."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from itertools import count

import nbformat
import pytest
from playwright.sync_api import expect

from llf_core.runs import RunWriter, create_run
from tests.ui.conftest import PATIENCE, new_context, set_theme
from tests.ui.test_monitor import TOY

pytestmark = pytest.mark.browser

LAST = "() => document.querySelector('.llf-Monitor .js-plotly-plot')?.data?.[0]?.x?.at(-1) ?? -1"
SESSION = "window.jupyterapp.shell.currentWidget.sessionContext"
BEHIND = 2.0  # seconds that a view may be behind the log
NUMBERS = count(1)


@pytest.fixture
def live(lab):
    """Starts runs of many minutes in the Lab's own LLF_HOME; ended with the test."""
    made = []

    def start(steps=5000, rate=5):
        made.append(
            subprocess.Popen(
                [sys.executable, str(TOY), str(lab.home), str(steps), str(rate)], stdout=subprocess.PIPE, text=True
            )
        )
        return lab.home / "runs" / made[-1].stdout.readline().strip()

    yield start
    for process in made:
        process.kill()
        process.wait()


def logged(folder):
    """The step of the last whole line of the log."""
    text = (folder / "metrics.jsonl").read_text() if (folder / "metrics.jsonl").exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return max((line["step"] for line in lines if "loss" in line["values"]), default=0)


def open_monitor(page, lab, folder, app="lab", *more):
    """A notebook with a monitor of the run, its charts drawn."""
    name = f"survives-{next(NUMBERS)}.ipynb"
    path = lab.notebook(name, f"import llf_widgets as llf\nllf.Monitor({folder.name!r})", *more)
    if app == "lab":
        lab.open(page, name)
        lab.run_cell(page, 0)
    else:
        page.goto(lab.address(name, app))
        page.locator(".jp-Cell .cm-content").first.click(timeout=120_000)
        page.wait_for_function("() => document.querySelector('.jp-NotebookKernelStatus, .jp-Toolbar')", timeout=120_000)
        page.keyboard.press("Shift+Enter")
    drawn(page)
    return path


def drawn(page):
    page.wait_for_function(f"() => ({LAST})() > 0", timeout=120_000)


def follows(page, folder):
    """Holds the charts against the log for a moment: what was logged two seconds ago is on the page.

    Others use the machine too: three looks in a row must hold, some time.
    """
    held, until = 0, time.monotonic() + PATIENCE / 1000
    while held < 3:
        step, at = logged(folder), time.monotonic()
        page.wait_for_function(f"step => ({LAST})() >= step", arg=step, timeout=PATIENCE)
        took = time.monotonic() - at
        held = held + 1 if took < BEHIND else 0
        assert time.monotonic() < until, f"It is {took:.1f} s behind."
        time.sleep(max(0.0, 0.4 - took))


def reload_at_random(page, lab, folder, times, seed):
    moments = random.Random(seed)
    for _ in range(times):
        time.sleep(moments.uniform(0, 1.5))
        page.reload()
        drawn(page)
        follows(page, folder)


def test_reloads_in_the_middle_of_a_run(page, lab, live):
    folder = live()
    open_monitor(page, lab, folder)
    lab.save(page)
    page.on("dialog", lambda dialog: dialog.accept())
    reload_at_random(page, lab, folder, 3, seed=1)


@pytest.mark.long
@pytest.mark.launches
@pytest.mark.timeout(900)
@pytest.mark.parametrize("app", ["lab", "notebooks"])
def test_twenty_reloads_in_the_middle_of_a_real_run(page, lab, real, app):
    folder = real(max_steps=200_000).folder.path
    open_monitor(page, lab, folder, app)
    if app == "lab":  # Notebook 7 lends its commands to nobody
        set_theme(page, "JupyterLab Dark")
    page.keyboard.press("Control+s")
    page.wait_for_timeout(1000)
    page.on("dialog", lambda dialog: dialog.accept())
    reload_at_random(page, lab, folder, 20, seed=2)


def test_a_busy_a_restarted_and_a_killed_kernel(page, lab, live):
    folder = live()
    open_monitor(page, lab, folder, "lab", "import time; time.sleep(600)")
    lab.run_cell(page, 1)
    follows(page, folder)
    lab.save(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()  # the kernel cannot answer: the cell goes on for minutes
    drawn(page)
    follows(page, folder)
    page.evaluate(f"() => {SESSION}.restartKernel().then(() => null)")
    follows(page, folder)
    page.evaluate(f"() => {SESSION}.shutdown().then(() => null)")
    follows(page, folder)
    page.get_by_role("button", name="Stop with checkpoint").click()
    expect(page.locator(".llf-State").first).to_have_text("stopped")
    page.wait_for_function(f"step => ({LAST})() === step", arg=logged(folder))  # drawn after the state


def test_two_tabs_and_the_end(page, browser, lab, live):
    folder = live(steps=60, rate=6)
    open_monitor(page, lab, folder)
    second = new_context(browser).new_page()
    open_monitor(second, lab, folder)
    for one in (page, second):
        follows(one, folder)
    for one in (page, second):
        expect(one.locator(".llf-State").first).to_have_text("finished", timeout=120_000)
        one.wait_for_function(f"() => ({LAST})() === 60", timeout=PATIENCE)
    second.context.close()


@pytest.mark.long
def test_a_server_that_restarts(page, tmp_path, browser):
    from tests.ui.conftest import Lab, Server

    server = Server(tmp_path)
    url = server.start_to_restart()
    own = Lab(url=url, root=server.root, home=server.home, server=server)
    toy = subprocess.Popen([sys.executable, str(TOY), str(own.home), "5000", "5"], stdout=subprocess.PIPE, text=True)
    try:
        folder = own.home / "runs" / toy.stdout.readline().strip()
        open_monitor(page, own, folder)
        follows(page, folder)
        server.stop()
        gone = page.locator(".llf-Monitor").get_by_text("This view is disconnected. The run is not affected.")
        expect(gone).to_be_visible(timeout=120_000)
        expect(page.locator(".llf-Monitor")).to_contain_text(f'llf.Monitor("{folder.name}")')
        server.start(int(url.split(":")[2].split("/")[0]))
        expect(gone).to_be_hidden(timeout=120_000)
        page.wait_for_function(f"step => ({LAST})() >= step", arg=logged(folder), timeout=120_000)  # caught up
        follows(page, folder)
    finally:
        toy.kill()
        toy.wait()
        server.stop()


@pytest.mark.parametrize("app", ["lab", "notebooks"])
def test_a_notebook_without_a_kernel_shows_its_run(page, lab, app):
    folder = create_run("model_name_or_path: m\n", "kept", lab.home)
    writer = RunWriter(folder)
    for step in (1, 2, 3):
        writer.metric(step, {"loss": 2.0 - step / 10})
    writer.close("failed", "The disk is full. Free some space and resume.")
    from llf_widgets.monitor import summary_bundle

    widget = {"model_id": "0" * 32, "version_major": 2, "version_minor": 0}
    data = summary_bundle(folder) | {"application/vnd.jupyter.widget-view+json": widget}
    cell = nbformat.v4.new_code_cell("llf.Monitor('kept')", outputs=[nbformat.v4.new_output("display_data", data)])
    book = nbformat.v4.new_notebook(cells=[cell])
    book.metadata["kernelspec"] = {"name": "nowhere", "display_name": "gone", "language": "python"}
    for name, there in (("kept-live.ipynb", True), ("kept-text.ipynb", False)):
        if not there:
            folder.path.rename(lab.home / f"away-{app}")
        nbformat.write(book, lab.root / name)
        page.goto(lab.address(name, app))
        output = page.locator(".jp-OutputArea-output").first
        expect(output).to_contain_text("The disk is full. Free some space and resume.", timeout=120_000)
        expect(output).to_contain_text("Training loss")
        expect(output.locator(".js-plotly-plot .main-svg" if there else "img").first).to_be_visible(timeout=120_000)
        expect(page.locator("body")).not_to_contain_text("Error displaying widget")
