"""One attempt of a run, from its folder to its final state, in order of execution."""

from __future__ import annotations

import logging
import shutil
import signal
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch

from llf_core.config import ConfigError, RunConfig
from llf_core.config.rules.conditions import no_answers_reason
from llf_core.data.preparation import write_report_events
from llf_core.data.streaming import Stream
from llf_core.doctor import Doctor
from llf_core.launch.torchrun_process import LOST_RANK
from llf_core.metrics import load_metrics
from llf_core.models import (
    plan_device,
)
from llf_core.models.bounded_templates import panics_as_errors
from llf_core.models.push import PushError
from llf_core.optimizers.optimizer import check_packages
from llf_core.runs import Checkpoints, RunWriter, read_status
from llf_core.runs.config_file import run_config
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.process_log import log_to_run
from llf_core.runs.status import BrokenRunError
from llf_core.runs.step_counters import read_counters, step_of
from llf_core.runs.writer import FollowerWriter, begin_phase
from llf_core.stages.base.context import StopTraining
from llf_core.stages.base.ranks import from_main, is_main, join_ranks, lost_rank, whole_on_main, world_size
from llf_core.stages.base.stage import make_stage
from llf_core.training.callbacks import AnswerMetrics, PhaseCallback, SamplePrompts
from llf_core.training.checkpoint_check import check_archives, check_best, trainer_state
from llf_core.training.failures import explain_failure
from llf_core.training.forgetting_probe import ForgettingProbe
from llf_core.training.live_changes import active_at_checkpoint
from llf_core.training.load_context import load_context
from llf_core.training.make_trainer import make_trainer, metric_directions
from llf_core.training.memory_plan import decide_checkpointing
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.output_copy import check_output_dir
from llf_core.training.past_run import add_to_past_runs, reset_peak, write_forecast
from llf_core.training.resolved_config import restore_resolved, warn_if_data_changed, write_resolved
from llf_core.training.save_run_result import PUSH_KEY, push_destination, push_result, save_run_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.models.push import Destination
    from llf_core.runs import RunFolder
    from llf_core.stages.base.loop import TrainingLoop

logger = logging.getLogger(__name__)


def run_attempt(folder: RunFolder, attempt: int) -> int:
    """Train the run in a folder and write its final state: any error becomes the state `failed`.

    For a process of its own: log, handler of SIGTERM (a stop with a checkpoint), random seeds and number of threads
    are set, and stay. Training continues from the newest complete checkpoint, which a branch has from the start.

    Returns:
        Exit code: 0 finished, stopped or left to the predictions, 1 failed, 2 a config, data set or model that must
            be changed.
    """
    log_to_run()
    if not is_main():
        logging.getLogger("llf_core").setLevel(logging.WARNING)
    writer = RunWriter(folder, attempt) if is_main() else FollowerWriter(folder, attempt)
    config: RunConfig | None = None
    try:
        writer.start_heartbeat()
        config = run_config(folder)
        join_ranks(cpu=bool(config.get("use_cpu")) or not torch.cuda.is_available())
        with panics_as_errors():
            state, reason = _train(folder, writer, config)
    except Exception as error:
        if lost_rank(error):
            logger.exception("Another rank has ended.")
            writer.stop_heartbeat()
            writer.release()
            return LOST_RANK
        failure = explain_failure(error, config, folder)
        logger.exception("The run failed.")
        details = {} if failure.expected else {"trace": traceback.format_exc()}
        with suppress(OSError):
            writer.event("error", message=failure.message, what_to_do=failure.what_to_do, **details)
        writer.close("failed", failure.reason)
        return failure.exit_code
    if state == "finished" and config.evaluation.do_predict and is_main():
        _hand_over(folder, writer, reason)
    else:
        writer.close(state, reason)
    return 0


def _hand_over(folder: RunFolder, writer: RunWriter, reason: str | None) -> None:
    """Leave a run whose result is saved to the process that makes its predictions."""
    writer.stop_heartbeat()
    now = read_status(folder)
    replace_file(folder.trained, json_bytes({"format": 1, "step": now.step, "total": now.total, "reason": reason}))
    writer.release()


def _train(folder: RunFolder, writer: RunWriter, config: RunConfig) -> tuple[str, str | None]:
    progress = MetricsCallback(folder, writer, keep=config.training.save_total_limit or 2)
    state, reason = _run(folder, writer, config, progress)
    return state, " ".join(filter(None, [reason, *progress.resume_warnings])) or None


def _run(  # noqa: C901, PLR0915 - an attempt from its beginning to its end
    folder: RunFolder, writer: RunWriter, config: RunConfig, progress: MetricsCallback
) -> tuple[str, str | None]:
    signal.signal(signal.SIGTERM, lambda *_: progress.requests.stop())
    check_packages(config)
    _check_output_dir(folder, writer, config)
    hub = _hub_destination(folder, writer, config) if is_main() else None
    checkpoint = Checkpoints(folder).latest()
    if checkpoint is not None:
        check_archives(Checkpoints(folder), step_of(checkpoint))
        trainer_state(checkpoint)  # raises for a damaged one before anything is loaded
    metrics = load_metrics(config.evaluation.metrics or (), folder.code) if not no_answers_reason(config) else []
    plan = from_main(lambda: plan_device(config))
    torch.set_num_threads(plan.threads)
    context = load_context(folder, config, writer, plan if checkpoint is None else restore_resolved(folder, plan))
    if checkpoint is not None:
        saved = read_counters(checkpoint)
        if saved.get("processes", 1) == world_size():
            # The order of sums depends on the number of threads: with another one, losses differ in the last bits.
            torch.set_num_threads(saved.get("threads", torch.get_num_threads()))
        warn_if_data_changed(folder, writer, context.data.report.fingerprint)
    stage = make_stage(config, context)
    chosen = decide_checkpointing(context, stage.auxiliary_models(), resumes=checkpoint is not None)
    added = () if checkpoint is None else active_at_checkpoint(folder, checkpoint).get("watch", ())
    progress.watched = SamplePrompts(folder, writer, config, context.model, context.tokenizer, added)
    if config.training.measure_forgetting and is_main():
        progress.forgetting = ForgettingProbe(writer, context.model, context.tokenizer)
    write_forecast(context, checkpointing=chosen.on)
    reset_peak(plan.device)
    begin_phase(writer, "first step")
    answers = AnswerMetrics(context, metrics) if metrics else None
    trainer = make_trainer(context, stage, progress, checkpoint, answers=answers)
    trainer.add_callback(phases := PhaseCallback(writer))
    directions = metric_directions(config, answers) if context.data.eval is not None else {}
    if is_main():
        write_resolved(context, chosen, directions)

    with _kept(progress):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    add_to_past_runs(context, checkpointing=chosen.on)
    step, total = trainer.state.global_step, trainer.state.max_steps
    writer.status(step=step)
    if isinstance(context.data.train, Stream) and is_main():
        write_report_events(writer, context.data.report)
        logger.info(context.data.report.text())
        write_resolved(context, chosen, directions)
    if progress.requests.stop_wanted and step < total:
        progress.requests.answer_checkpoint(step)
        return "stopped", f"Stopped at step {step} of {total} with checkpoint-{step}."

    progress.warn_inexact_resume(check_best(trainer, progress.checkpoints))
    if context.data.eval is not None and not _evaluated_at(trainer, step):
        phases.begin("evaluation")
        with _kept(progress):
            trainer.evaluate()
    phases.begin("saving")
    progress.watched.answer(step)
    with whole_on_main(trainer.model):
        not_copied = save_run_result(context, trainer) if is_main() else ""
    if not is_main():
        return "finished", None
    not_copied = " ".join(filter(None, [not_copied, _push(folder, writer, hub)]))
    shutil.rmtree(folder.path / "cache", ignore_errors=True)  # earlier versions cached outputs of frozen layers there
    progress.requests.answer_checkpoint(step)
    with suppress(OSError, BrokenRunError):  # whatever happened to its files, the run has trained
        writer.status(finding=Doctor(folder).outcome())
    if step < total:
        return "finished", f"Early stopping ended the run at step {step} of {total}. {not_copied}".rstrip()
    return "finished", not_copied or None


@contextmanager
def _kept(progress: MetricsCallback) -> Iterator[None]:
    try:
        yield
    except StopTraining:
        progress.save_now()
        raise


def _evaluated_at(trainer: TrainingLoop, step: int) -> bool:
    return any("eval_loss" in entry and entry["step"] == step for entry in trainer.state.log_history)


def _check_output_dir(folder: RunFolder, writer: RunWriter, config: RunConfig) -> None:
    """Refuse an unusable `output_dir` before a run starts; a resumed run only gets a warning."""
    try:
        check_output_dir(config, folder)
    except ConfigError as error:
        if writer.attempt == 1:
            raise
        writer.warn("output_dir", error.problems[0].message)


def _hub_destination(folder: RunFolder, writer: RunWriter, config: RunConfig) -> Destination | None:
    """Refuse a hub that cannot be written before a run starts; a resumed run only gets a warning."""
    try:
        return push_destination(config, folder)
    except PushError as error:
        if writer.attempt == 1:
            raise
        writer.warn(PUSH_KEY, str(error))
        return None


def _push(folder: RunFolder, writer: RunWriter, to: Destination | None) -> str:
    """Push the result; returns why it failed, also as a warning since the result is safe, else an empty string."""
    if to is None:
        return ""
    try:
        logger.info(push_result(folder, to))
    except PushError as error:
        writer.warn(PUSH_KEY, str(error))
        return str(error)
    return ""
