"""The form in a real kernel: fields set, Start pressed by its message, the run trained to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient

if TYPE_CHECKING:
    from pathlib import Path

SETUP = """\
import llf_widgets as llf
studio = llf.Studio({{"model_name_or_path": {model!r}, "dataset": "llf_demo", "max_steps": 2,
                     "per_device_train_batch_size": 2, "cutoff_len": 128, "logging_steps": 1, "threads": 1}})
studio
"""
START = """\
studio.set(learning_rate=5e-4)
studio._start._handle_custom_msg({"type": "start"}, [])
studio._start._handle_custom_msg({"type": "start"}, [])
studio.run.wait(progress=False)
print(studio.run.state, len(list(studio.run.folder.path.parent.iterdir())))
"""


@pytest.mark.usefixtures("warm_kernels")
@pytest.mark.launches
def test_form_in_a_kernel_trains(tiny_model_dir: Path, tmp_path: Path) -> None:
    cells = [SETUP.format(model=str(tiny_model_dir)), START]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = book.cells[0].outputs[-1].data
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "max_steps: 2" in shown["text/plain"]
    assert "max_steps: 2" in shown["text/html"]
    printed = "".join(output.text for output in book.cells[1].outputs if output.output_type == "stream")
    assert printed.strip() == "finished 1"
