"""`python -m llf_core.training.main RUN_FOLDER`: the trainer process, started by the supervisor."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from llf_core.install_command import install_command
from llf_core.models.lazy_imports import deferred_imports, prepare_imports
from llf_core.runs import RunFolder, RunWriter, read_status
from llf_core.runs.config_file import run_config
from llf_core.runs.control import AGENT_VARIABLE
from llf_core.runs.disk_errors import failure_message, is_disk_error
from llf_core.runs.process_log import exit_with, tolerate_a_full_log
from llf_core.runs.writer import begin_phase
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from llf_core.config import RunConfig


def main(argv: list[str] | None = None) -> int:
    """Train the run whose folder is the only argument, in the process that the supervisor starts.

    Any error becomes the run's final state. With `do_predict`, the program that makes the predictions takes the
    place of this process once the result is saved.

    Returns:
        Exit code: 0 finished or stopped, 1 failed, 2 bad config.
    """
    (path,) = sys.argv[1:] if argv is None else argv
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_parent()
    folder = RunFolder(Path(path))
    if leads_to_file(folder.trained):
        _predict(folder)
    attempt = read_status(folder).attempt
    tolerate_a_full_log()
    try:
        if int(os.environ.get("RANK", "0")) == 0:
            begin_phase(RunWriter(folder, attempt), "environment")
        prepare_imports()
        with deferred_imports(_config(folder)):
            from llf_core.training.session import run_attempt
    except ModuleNotFoundError as error:
        RunWriter(folder, attempt).close(
            "failed",
            f"Training needs {error.name}, which is not installed. Run {install_command('train')}, then resume.",
        )
        return 1
    except Exception as error:  # noqa: BLE001 - nothing else reports errors before torch is imported
        traceback.print_exc()
        reason = f"The trainer could not start: {type(error).__name__}: {error}".splitlines()[0].rstrip(".: ")
        reason = (
            " ".join(failure_message(folder, error))
            if is_disk_error(error)
            else f"{reason}. The traceback is in log.txt."
        )
        RunWriter(folder, attempt).close("failed", reason)
        return 1
    from llf_core.runs.foreign_code import started_by_user  # late, as the imports above

    with started_by_user():
        code = run_attempt(folder, attempt)
    if int(os.environ.get("RANK", "0")) == 0 and leads_to_file(folder.trained):
        _predict(folder)
    return code


def _end_with_parent() -> None:
    """End when torchrun's agent ends, even by SIGKILL (Linux): each rank leads a session that nobody else would end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != int(os.environ.get(AGENT_VARIABLE, os.getppid())):  # it has ended before
            os._exit(1)


def _predict(folder: RunFolder) -> NoReturn:
    """Replace this process by `llf_core.chat.predict_after_training`."""
    sys.stdout.flush()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)  # it is a process alone
    module = "llf_core.chat.predict_after_training"
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, str(folder.path)])  # noqa: S606 - our own module


def _config(folder: RunFolder) -> RunConfig | None:
    from llf_core.config import ConfigError

    try:
        return run_config(folder)
    except ConfigError:
        return None  # the attempt reports the error


if __name__ == "__main__":
    exit_with(main)
