"""What a cell shows of an error whose cause is known. One real kernel."""

import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = {
    "typo": "import llf_widgets as llf\nllf.train({'dataset': 'llf_demo', 'lerning_rate': 1, 'lora_rank': -1})",
    "tb": "%tb",
    "from": (
        "from llf_core.data.errors import DataError\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise DataError('No rows.', 'Add one.') from error"
    ),
    "inside": "try:\n    raise DataError('No rows.')\nexcept DataError:\n    print('caught')\n    raise",
    "async": "await __import__('asyncio').sleep(0)\nraise DataError('No rows.')",
    "other": "raise ValueError('one of the cell itself')",
}


@pytest.fixture(scope="module")
def outputs():
    """The outputs of each cell, as Jupyter saves them."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in CELLS.values()])
    NotebookClient(notebook, timeout=120, allow_errors=True, kernel_name="python3").execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def test_a_cell_shows_the_sentences_alone(outputs):
    (error,) = outputs["typo"]
    assert error.ename == "ConfigError"
    assert error.traceback == f"ConfigError: {error.evalue}".splitlines()
    assert [line.partition(".")[0] for line in error.traceback] == [
        "ConfigError: Unknown key `lerning_rate`",
        "LoRA rank (`lora_rank`) is -1",
    ]


def test_tb_shows_the_traceback(outputs):
    text = str(outputs["tb"])
    assert "Traceback (most recent call last)" in text
    assert "load_checked_config" in text
    assert "Unknown key `lerning_rate`" in text


@pytest.mark.parametrize(
    ("name", "said"), [("from", "No rows. Add one."), ("inside", "No rows."), ("async", "No rows.")]
)
def test_however_it_is_raised(outputs, name, said):
    assert outputs[name][-1].traceback == [f"DataError: {said}"]


def test_other_errors_show_where_they_come_from(outputs):
    (error,) = outputs["other"]
    assert "Traceback (most recent call last)" in "\n".join(error.traceback)


def test_without_a_kernel_python_shows_its_own_traceback():
    code = "from llf_core.data.errors import DataError\nraise DataError('No rows.', 'Add one.')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.endswith("DataError: No rows. Add one.\n")
