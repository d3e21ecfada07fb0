"""Executes notebooks as `make demo` and papermill do, and reads what is saved."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TOY = Path(__file__).parents[2] / "ui" / "toy_trainer.py"
VIEW_MIME_TYPE = "application/vnd.llf.view+json"
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def live_run(llf_home):
    """A run that another process writes until it is asked to stop."""
    llf_home.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, str(TOY), str(llf_home), "2000", "10"], stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait()


def execute(*cells):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=60, kernel_name="python3", allow_errors=True).execute()
    return book


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def bundles(cell):
    return [output["data"] for output in cell.outputs if output.output_type in ("display_data", "execute_result")]


def test_a_run_that_grows_while_its_cell_has_long_ended(live_run):
    book = execute(
        f"import llf_widgets as llf\nview = llf.Monitor({live_run!r})\nview",
        "import time\npoints = lambda: view._view.charts['points']\nfirst = points()\ntime.sleep(2)\nlater = points()",
        f"print(view.state, later > first)\nllf.attach({live_run!r}).stop()\nprint(view.wait(30))",
    )
    [static] = bundles(book.cells[0])
    assert set(static) == {WIDGET, VIEW_MIME_TYPE, "image/png", "text/html", "text/plain"}
    assert static["text/plain"].startswith("smollm2-sft-lora: stopped. Stopped at step ")
    step = int(static["text/plain"].split("at step ")[1].split(" ")[0])
    assert (static[VIEW_MIME_TYPE]["state"], static[VIEW_MIME_TYPE]["step"]) == ("stopped", step)
    assert "<table" in static["text/html"]
    assert printed(book.cells[2]) == "running True\nstopped\n"
    assert bundles(book.cells[2]) == []  # the summary stands where the view was shown, not in the cell that ran


DRAWN = """
import threading

def drawing():
    return any(thread.name.startswith("llf-picture") for thread in threading.enumerate())

for drawn in (drawing, lambda: not drawing()):
    end = time.monotonic() + 60
    while not drawn() and time.monotonic() < end:
        time.sleep(0.01)
"""
"""Waits until a thread has begun to draw the picture of a run, and has ended."""


def test_a_run_that_still_goes_leaves_what_is_known_of_it(live_run):
    book = execute("import time; time.sleep(1)", f"import llf_widgets as llf\nllf.Monitor({live_run!r})", DRAWN)
    [static] = bundles(book.cells[1])
    assert re.match(
        r"smollm2-sft-lora: running\. Step \d+ of 2,000 when this was saved, \d\d:\d\d\.", static["text/plain"]
    )
    assert "<table" in static["text/html"]
    assert "data:image/png;base64," in static["text/html"]
    assert "llf.Monitor" in static["text/html"]


def test_an_interrupted_cell_leaves_view_and_run_alone(live_run):
    book = execute(
        f"import llf_widgets as llf\nview = llf.Monitor({live_run!r})\nview",
        "import os, signal, threading\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "print(view.wait(30))",
        f"llf.attach({live_run!r}).stop()\nprint(view.wait(30))",
    )
    assert printed(book.cells[1]) == (
        f"{live_run} is still running. Stop it with the button above, or with "
        f"llf.attach({live_run!r}).stop()\nrunning\n"
    )
    assert printed(book.cells[2]) == "stopped\n"
    assert bundles(book.cells[0])[0]["text/plain"].startswith("smollm2-sft-lora: stopped.")


def test_magics_of_a_live_run(live_run):
    book = execute("%load_ext llf_widgets", "%llf runs", "%llf monitor last", "%llf stop", "%llf checkpoint nope")
    assert live_run in printed(book.cells[1])
    assert "application/vnd.jupyter.widget-view+json" in bundles(book.cells[2])[0]
    assert printed(book.cells[3]) == f"{live_run} stops after the current step.\n"
    assert "No run nope" in str(book.cells[4].outputs)
    assert "Traceback" not in str(book.cells[4].outputs)
