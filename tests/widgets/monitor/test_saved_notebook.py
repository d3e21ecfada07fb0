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
    NotebookClient(book, timeout=240, startup_timeout=240, kernel_name="python3", allow_errors=True).execute()
    return book


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def bundles(cell):
    return [output["data"] for output in cell.outputs if output.output_type in ("display_data", "execute_result")]


GROWN = """
import time

def points():
    return view._view.charts["points"]

first, end = points(), time.monotonic() + 120
while points() == first and time.monotonic() < end:
    time.sleep(0.05)
"""
"""Waits until a view that an earlier cell shows has more points."""


def test_a_run_that_grows_while_its_cell_has_long_ended(live_run):
    book = execute(
        f"import llf_widgets as llf\nview = llf.Monitor({live_run!r})\nview",
        GROWN,
        f"print(view.state, points() > first)\nllf.attach({live_run!r}).stop()\nprint(view.wait(120))",
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

end = time.monotonic() + 120
while (view._save_at == 0 or drawing()) and time.monotonic() < end:
    time.sleep(0.01)
"""
"""Waits until a thread was started that draws the picture of a run, and has ended."""


def test_a_run_that_still_goes_leaves_what_is_known_of_it(live_run):
    book = execute(f"import time\nimport llf_widgets as llf\nview = llf.Monitor({live_run!r})\nview", DRAWN)
    [static] = bundles(book.cells[0])
    assert re.match(
        r"smollm2-sft-lora: running\. Step \d+ of 2,000 when this was saved, \d\d:\d\d\.", static["text/plain"]
    )
    assert "<table" in static["text/html"]
    assert "data:image/png;base64," in static["text/html"]
    assert "llf.Monitor" in static["text/html"]


INTERRUPTED = """
import os, signal, threading, time

def interrupt():
    while not view._ended._cond._waiters:  # until `wait` waits
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
print(view.wait(120))
"""


def test_an_interrupted_cell_leaves_view_and_run_alone(live_run):
    book = execute(
        f"import llf_widgets as llf\nview = llf.Monitor({live_run!r})\nview",
        INTERRUPTED,
        f"llf.attach({live_run!r}).stop()\nprint(view.wait(120))",
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
