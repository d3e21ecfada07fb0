"""`python -m llf_core.chat.predict_after_training RUN_FOLDER`: the predictions of a run whose result is saved.

The trainer's process becomes this one (`llf_core.training.main`), so that the memory of the training is free and the
supervisor goes on watching the same process. A resumed attempt begins here if the result was saved before.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs import Inbox, RunFolder, RunWriter, read_status
from llf_core.runs.config_file import run_config
from llf_core.runs.folder import RESULT, RESULTS
from llf_core.runs.process_log import log_to_run, tolerate_a_full_log
from llf_core.runs.writer import ProgressEvents, begin_phase
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from llf_core.chat.batch_prediction import PredictionProgress
    from llf_core.config import RunConfig

logger = logging.getLogger("llf_core.chat.predict_after_training")  # as the process, its name is `__main__`

KEY = "do_predict"


class _StoppedError(Exception):
    """The user has stopped the predictions."""


class _Watch:
    """Writes the progress of predictions, answers requests, and ends them when a stop was requested."""

    def __init__(self, writer: RunWriter, step: int) -> None:
        self._writer, self._step = writer, step
        self._inbox = Inbox(writer.folder)
        self._progress: ProgressEvents | None = None
        self._stop = threading.Event()
        self.done = "the first one"
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())

    def __call__(self, at: PredictionProgress) -> None:
        if self._progress is None:
            self._progress = ProgressEvents(self._writer, "predictions", at.total, step=self._step)
        if not at.activity:
            self._progress(at.done, **({"tokens": at.tokens} if at.tokens else {}))
        self.done = f"{at.done:,} of {at.total:,}"
        for request in self._inbox.scan():
            stops = request.type == "stop"
            message = "The predictions are stopped." if stops else "The training has ended; predictions are made."
            self._writer.event("request", id=request.id, request=request.type, args=request.args, by=request.by)
            self._writer.event("answer", id=request.id, request=request.type, ok=stops, message=message)
            self._inbox.done(request)
            if stops:
                self._stop.set()
        if self._stop.is_set():
            raise _StoppedError


def main(argv: list[str] | None = None) -> int:
    """Make the predictions of the run whose folder is the only argument, and end the run.

    It is finished even if they fail; its reason then says what is missing and which command continues. SIGTERM ends
    them. Only a killed process leaves the run failed; a resume then continues here.
    """
    (path,) = sys.argv[1:] if argv is None else argv
    folder = RunFolder(Path(path))
    status = read_status(folder)
    tolerate_a_full_log()
    log_to_run()
    writer = RunWriter(folder, status.attempt)
    writer.start_heartbeat()
    trained = read_object_or_empty(folder.trained)
    step = _whole_number(trained.get("step"), status.step)
    total = _whole_number(trained.get("total"), step)
    writer.status(state="running", step=step, total=total)
    begin_phase(writer, "predictions")
    reasons = [str(trained.get("reason") or ""), _predict(folder, writer, step)]
    folder.trained.unlink(missing_ok=True)
    writer.close("finished", " ".join(filter(None, reasons)) or None)
    return 0


def _whole_number(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def _predict(folder: RunFolder, writer: RunWriter, step: int) -> str:
    """Make the predictions; what is missing in the end, as sentences, or an empty text."""
    watch = _Watch(writer, step)
    config: RunConfig | None = None
    try:
        config = run_config(folder)
        return _predictions(folder, writer, config, watch)
    except _StoppedError:
        return f"The predictions were stopped after {watch.done}. {_continued(folder)}"
    except Exception as error:
        from llf_core.training.failures import explain_failure

        failure = explain_failure(error, config, folder)
        message = f"The predictions failed. {failure.reason}"
        details: dict[str, object] = {} if failure.expected else {"trace": traceback.format_exc()}
        logger.exception("The predictions failed.")
        with suppress(OSError):
            writer.event("warning", key=KEY, message=message, **details)
        return f"{message} {_continued(folder)}"


def _continued(folder: RunFolder) -> str:
    return f"The result is complete; `llf predict {folder.id}` makes the remaining predictions."


def _predictions(folder: RunFolder, writer: RunWriter, config: RunConfig, watch: _Watch) -> str:
    """Predict, and copy the files to `output_dir`; why that failed, or an empty text."""
    from llf_core.chat.batch_prediction import predict_data_set
    from llf_core.chat.target import find_target
    from llf_core.config import RunConfig
    from llf_core.config.evaluation_keys import prediction_values
    from llf_core.metrics import load_metrics
    from llf_core.training.output_copy import OutputCopyError, add_to_copy

    warn = partial(writer.warn, KEY)
    metrics = load_metrics(config.evaluation.metrics or (), folder.code)
    asked = RunConfig.load(prediction_values(config.flat()), base=folder.path)
    found = predict_data_set(asked, find_target(folder), folder.predictions, metrics, warn=warn, on_progress=watch)
    logger.info(f"{found.records - found.errors:,} of {found.records:,} records have a prediction: {found.file}")
    for name, value in found.values.items():
        logger.info(f"{name}: {value:,.4g}")
    try:
        add_to_copy(config, folder, [folder.predictions / RESULT, folder.predictions / RESULTS])
    except OutputCopyError as error:
        warn(str(error))
        return str(error)
    return ""


if __name__ == "__main__":
    from llf_core.runs.foreign_code import started_by_user
    from llf_core.runs.process_log import exit_with

    with started_by_user():
        exit_with(main)
