"""What a failure says: of a run with its log, and of a process that is none's."""

import errno
import os

import pytest
import torch

from llf_core.training.failures import explain_failure

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("a\nb"), "The process failed with TypeError: a."),
        (FULL, "A file could not be written: [Errno 28] No space left on device. Free space on its disk."),
        (torch.OutOfMemoryError("CUDA"), "Out of memory. Free memory, or use a smaller model."),
        (MemoryError(), "Out of memory. Free memory, or use a smaller model."),
    ],
)
def test_an_evaluation_or_export_names_no_log_and_no_setting_of_a_training(error, said):
    assert explain_failure(error).reason == said


def test_a_run_names_its_log(make_run):
    folder = make_run()
    said = explain_failure(TypeError("a"), None, folder).reason
    assert said == "The trainer failed with TypeError: a. The traceback is in log.txt."
    assert explain_failure(MemoryError(), None, folder).reason.startswith("Out of memory besides the examples")
