"""A job in a process of its own."""

import pytest

from llf_core.export.errors import ExportError
from llf_core.export.gguf.program import run


def test_a_process_that_ends_without_a_result_is_a_sentence():
    with pytest.raises(ExportError, match="The model was not converted: its process wrote no result"):
        run("json.tool", {"threads": 1}, "converted")  # which reads the job, and ends with 0
