"""Callback that writes a run's metrics, events and checkpoints, and carries out its control requests."""

from __future__ import annotations

import json
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, set_seed

from llf_core.config.number_format import with_unit
from llf_core.models.checksums import checkpoint_tensors, checksums
from llf_core.models.memory import memory_in_use
from llf_core.runs import Checkpoints, Inbox, RunReader
from llf_core.runs.charts import key_values, lowercase_label
from llf_core.runs.formatting import count, number, rate, size
from llf_core.runs.formatting import value as write
from llf_core.runs.step_counters import COUNTERS, read_counters
from llf_core.stages.base.loop import inner_optimizer
from llf_core.stages.base.ranks import (
    from_all,
    is_main,
    is_sharded,
    rank,
    restore_shards,
    save_shards,
    wait_for_ranks,
    whole_on_main,
    world_size,
)
from llf_core.training.checkpoint_check import check_reloaded
from llf_core.training.live_changes import LiveChanges
from llf_core.training.memory_plan import smaller_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llf_core.runs import Request, RunFolder, RunWriter
    from llf_core.stages.base.loop import TrainingLoop
    from llf_core.training.callbacks import SamplePrompts
    from llf_core.training.forgetting_probe import ForgettingProbe

logger = logging.getLogger(__name__)

MAX_PENDING_STEPS = 64
"""Maximum number of steps whose example losses wait to be written."""

ROUNDING = 1e-3
"""Relative difference of losses at the same step that kernels of an accelerator may cause."""

NOT_LOGGED = {
    "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss",
    "num_tokens", "step_time", "eval_num_tokens",  # TRL's: they are `tokens` and `step_seconds`
}  # fmt: skip
EVALUATION_ONLY = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


class MetricsCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Writes metrics, events, status and complete checkpoints, and handles control requests between steps.

    No step waits for a disk flush: a logged step costs one `os.write` and one directory scan.

    Attributes:
        keep: number of checkpoints to keep besides the best; None keeps all.
        trainer: set after it was created, since it is created with its callbacks.
        watched: the sample prompts; set before training.
        resume_warnings: sentences why a resumed run may differ from an uninterrupted one.
    """

    def __init__(self, folder: RunFolder, writer: RunWriter, keep: int | None = 2) -> None:
        self.writer = writer
        self.checkpoints = Checkpoints(folder)
        self.keep = keep
        self.trainer: TrainingLoop | None = None
        self.watched: SamplePrompts | None = None
        self.forgetting: ForgettingProbe | None = None
        self.live_changes = LiveChanges(folder, writer)
        self.requests = ControlRequests(folder, writer, self.live_changes)
        self.resume_warnings: list[str] = []
        self._kept: dict[str, Tensor] | None = None  # finding them takes as long as their checksums
        self._folder = folder
        self._resume_check: ResumeCheck | None = None
        self._base_waits = False
        self._load: GpuLoad | None = None
        self._seen_before = [0, 0]
        self._logged_tokens = 0
        self._busy = 0.0
        self._busy_steps = 0
        self._mark = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Verify a loaded checkpoint, restore its counters and live changes, and record that training starts.

        At the start of a new run forgetting is measured, and the base model answers the sample prompts, unless that
        can wait for the first logged loss. Intervals and best checkpoint of `state` are set to this run's.
        """
        counters = read_counters(Path(args.resume_from_checkpoint)) if args.resume_from_checkpoint else {}
        self._seen_before = counters.get("seen", [0, 0])
        if counters and self.trainer is not None:
            self._check_reloaded(self.trainer, counters, Path(args.resume_from_checkpoint))
        before = counters.get("processes", 1) if counters else world_size()
        if before != world_size():
            self._say_other_ranks(args, state.global_step, before)
        self._resume_check = self._compare(args, state.global_step, before) if counters else None
        _own_steps(args, state)
        self._own_best(state)
        if self.trainer is not None:
            self.trainer.tell = self.writer.warn
            steps = args.gradient_accumulation_steps
            saved = counters.get("gradient_accumulation_steps", steps) if before == world_size() else steps
            self.trainer.train_parts.count = max(1, saved // steps)
            self.trainer.eval_parts.count = counters.get("eval_parts", 1)
            self.live_changes.begin(self.trainer, self.watched, counters.get("held", {}), state.global_step)
            self.live_changes.reapply(state.global_step, control)
            self.live_changes.record_schedule()
            state.num_train_epochs = self.trainer.planned_epochs
        self.writer.status(state="running", step=state.global_step, total=state.max_steps)
        self.writer.event("state", state="running")
        if not state.global_step:
            # Sampling takes seconds, and users wait for the first loss.
            self._base_waits = self.watched is not None and self.watched.base_can_wait
            if not self._base_waits:
                self._watch(0)
            self._measure_forgetting(0)
        self._logged_tokens = self._seen()[0]
        self._mark = time.perf_counter()

    def _check_reloaded(self, trainer: TrainingLoop, counters: dict[str, Any], checkpoint: Path) -> None:
        restore_shards(inner_optimizer(trainer.optimizer), checkpoint)
        with whole_on_main(trainer.model):
            if is_main() or not is_sharded(trainer.model):
                self.warn_inexact_resume(
                    check_reloaded(trainer, counters, Checkpoints(self._folder), trainer.state.global_step)
                )

    def _own_best(self, state: TrainerState) -> None:
        """Point the best checkpoint to this folder: a checkpoint stores the path it was written to."""
        if state.best_global_step is None or not state.best_model_checkpoint:
            return
        own = self.checkpoints.path(state.best_global_step)
        if self.checkpoints.complete(state.best_global_step):
            state.best_model_checkpoint = str(own)
            return
        said = f"The best checkpoint so far ({own.name}) is missing. The best checkpoint from now on replaces it."
        self.writer.warn("load_best_model_at_end", said)
        state.best_model_checkpoint = state.best_metric = None
        state.best_global_step = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Measure the step's duration, then apply live changes and handle control requests."""
        now = time.perf_counter()
        if self.trainer is not None and len(self.trainer.pending_losses) >= MAX_PENDING_STEPS:
            self._write_examples()
        self._busy += now - self._mark
        self._busy_steps += 1
        self._mark = now
        self.live_changes.reapply(state.global_step, control)
        self.requests.handle(control, state.global_step, self.watched)
        self.writer.status(step=state.global_step)
        self._mark = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Append the logged metrics with tokens, speed and memory, and write a line to the log.

        After the first loss the base model answers the sample prompts, if it has waited for that.
        """
        logs = logs or {}
        self._write_examples()
        values = {
            name: value
            for name, value in logs.items()
            if name not in NOT_LOGGED
            and value is not None
            and not (name.startswith("eval_") and name.endswith(EVALUATION_ONLY))
        }
        if "loss" in values:
            read, learned = self._seen()
            seconds = self._busy / max(self._busy_steps, 1)
            values |= {
                "tokens": read,
                "trained_tokens": learned,
                "tokens_per_second": (read - self._logged_tokens) / max(self._busy, 1e-9),
                "step_seconds": seconds,
                "memory": memory_in_use(args.device),
            }
            if self._load is None:
                self._load = GpuLoad(args.device)
            values |= self._load.read()
            self.writer.status(step_seconds=round(seconds, 4))
            self._logged_tokens, self._busy, self._busy_steps = read, 0.0, 0
        if values.keys() - {"epoch"}:
            self.writer.metric(state.global_step, values)
            if self._resume_check is not None and "loss" in values:
                self.warn_inexact_resume(self._resume_check.compare(state.global_step, values["loss"]))
            logger.info(_line(state, values))
        if self._base_waits and "loss" in values:
            self._base_waits = False
            self._watch(0)
            self._mark = time.perf_counter()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Record the evaluation, answer requests for it, sample and measure forgetting, without counting the time."""
        self.writer.event("evaluation", step=state.global_step, values=metrics or {})
        self.requests.answer_evaluation(metrics or {}, state.global_step)
        self._watch(state.global_step)
        self._measure_forgetting(state.global_step)
        wait_for_ranks()
        self._mark = time.perf_counter()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Complete the new checkpoint, answer requests that wait for it, and remove old checkpoints.

        A checkpoint counts only once the counters, checksums and stage state are written here and flushed to disk.
        """
        step = state.global_step
        trainer = self.trainer
        model = None if trainer is None else trainer.model
        if trainer is not None and not is_main():
            trainer.stage.save(self.checkpoints.path(step))
        if trainer is not None and is_sharded(trainer.model):
            save_shards(inner_optimizer(trainer.optimizer), self.checkpoints.path(step))
            self._kept = None  # they are gathered for each checkpoint
        wait_for_ranks()  # each has written its random state
        with nullcontext() if model is None else whole_on_main(model, trained=hasattr(model, "peft_config")):
            if is_main():
                self._complete(args, state)
        wait_for_ranks()
        self.requests.answer_checkpoint(step)
        self._watch(step)
        self._measure_forgetting(step)
        wait_for_ranks()
        self._mark = time.perf_counter()

    def _complete(self, args: TrainingArguments, state: TrainerState) -> None:
        """Write the files that make the checkpoint of this step complete, and remove old checkpoints."""
        step = state.global_step
        path = self.checkpoints.path(step)
        train_parts, eval_parts = (
            (1, 1) if self.trainer is None else (self.trainer.train_parts.count, self.trainer.eval_parts.count)
        )
        counters = {
            "seen": self._seen(),
            "per_device_train_batch_size": smaller_size(args.per_device_train_batch_size, train_parts),
            "gradient_accumulation_steps": args.gradient_accumulation_steps * train_parts,
            "eval_parts": eval_parts,
            "threads": torch.get_num_threads(),
            "processes": world_size(),
            "held": self.live_changes.held,
        }
        if self.trainer is not None:
            counters["stage"] = self.trainer.stage.state()
            self.trainer.stage.save(path)
            if self._kept is None:
                self._kept = checkpoint_tensors(self.trainer.model, self.trainer.stage.auxiliary_models())
            with ThreadPoolExecutor(1) as executor:
                found = executor.submit(checksums, self._kept)
                self.checkpoints.flush(step)  # the checksums are computed while the disk writes
                counters["tensors"] = found.result()
        (path / COUNTERS).write_text(json.dumps(counters), encoding="utf-8")
        size = self.checkpoints.finish(step)
        self.writer.event("checkpoint", step=step, path=f"checkpoints/{path.name}", bytes=size)
        if state.best_global_step and state.best_metric is not None:
            name = args.metric_for_best_model or "loss"
            self.writer.status(
                best={
                    "step": state.best_global_step,
                    "value": state.best_metric,
                    "metric": name if name.startswith("eval_") else f"eval_{name}",
                }
            )
        for removed in self.checkpoints.prune(keep=self.keep, best=state.best_global_step or None):
            self.writer.event("checkpoint_removed", step=removed)

    def save_now(self) -> None:
        """Write a checkpoint of a run that cannot continue, unless no step was made or this step has one."""
        trainer = self.trainer
        if trainer is None or not trainer.state.global_step or self.checkpoints.complete(trainer.state.global_step):
            return
        trainer.save_checkpoint()

    def _write_examples(self) -> None:
        """Write the example losses, not in every step, since reading them waits for the GPU."""
        if self.trainer is None:
            return
        pending_losses, self.trainer.pending_losses = self.trainer.pending_losses, []
        own = {
            step: [torch.cat(parts).tolist() for parts in zip(*batches, strict=True)]
            for step, batches in pending_losses
        }
        ranks = from_all(own)
        for step in sorted(set().union(*ranks)):
            parts = zip(*(one[step] for one in ranks if step in one), strict=True)
            self.writer.examples(step, *(list(chain(*lists)) for lists in parts))

    def _watch(self, step: int) -> None:
        if self.watched is None:
            return
        if self.trainer is not None:
            self.trainer.use_result_weights()
        self.watched.answer(step)

    def _measure_forgetting(self, step: int) -> None:
        if self.forgetting is not None:
            if self.trainer is not None:
                self.trainer.use_result_weights()
            values = self.forgetting.measure(step)
            if values:
                logger.info("Forgetting at step %d: %s", step, _forgetting(values))

    def _compare(self, args: TrainingArguments, step: int, before: int) -> ResumeCheck:
        exact = args.device.type == "cpu" and before == world_size()
        processes = None if before == world_size() else (before, world_size())
        return ResumeCheck(self._folder, self.writer, step, 0.0 if exact else ROUNDING, processes)

    def _say_other_ranks(self, args: TrainingArguments, step: int, before: int) -> None:
        """Warn what is exact with another number of processes, and seed for random numbers that no step has used."""
        set_seed(args.seed + step + rank())
        now = world_size()
        self.warn_inexact_resume(
            f"This run has gone on in {now} {'process' if now == 1 else 'processes'} from step {step}, after {before}: "
            "each step has the same examples, and weights, optimizer and schedule are those of the checkpoint. Sums "
            "are made in another order, so losses agree to rounding, not to the last bit. Random numbers, such as "
            "those of dropout, are drawn anew."
        )

    def warn_inexact_resume(self, message: str) -> None:
        """Warn that a resumed run may differ from an uninterrupted one, also in its status; nothing if empty."""
        if message:
            self.resume_warnings.append(message)
            self.writer.warn("resume", message)
            self.writer.status(reason=message)

    def _seen(self) -> list[int]:
        now = self.trainer.seen.tolist() if self.trainer is not None else [0, 0]
        return [before + here for before, here in zip(self._seen_before, now, strict=True)]


def _forgetting(values: dict[str, float]) -> str:
    return "  ".join(f"{name.partition('/')[2]} {number(value)}" for name, value in values.items())


def _own_steps(args: TrainingArguments, state: TrainerState) -> None:
    """Restore the logging, evaluation and saving intervals of this run's config; a checkpoint may store others."""
    for name in ("logging_steps", "eval_steps", "save_steps"):
        steps = getattr(args, name)
        if steps is not None and steps >= 1:  # a share of all steps keeps the number that it was resolved to at first
            setattr(state, name, steps)


def _line(state: TrainerState, values: dict[str, float]) -> str:
    parts = [f"step {state.global_step:>5}/{state.max_steps}"]
    writers: dict[str, Callable[[float], str]] = {
        "loss": lambda value: f"loss {number(value)}",
        "eval_loss": lambda value: f"eval_loss {number(value)}",
        "learning_rate": lambda value: f"lr {rate(value)}",
        "grad_norm": lambda value: f"grad {number(value)}",
        "tokens_per_second": lambda value: f"{with_unit(count(value), 'token')}/s",
        "memory": lambda value: " ".join(size(value)),
    }
    parts += [render(values[name]) for name, render in writers.items() if name in values]
    parts[1:1] = [f"{lowercase_label(one['label'])} {write(one['value'], one['form'])}" for one in key_values(values)]
    return "  ".join(parts)


CHECKED = 10
"""Number of steps to compare, a choice of this project."""


class ResumeCheck:
    """Compares the first losses of an attempt with the log, and writes the event `receipt` once.

    Args:
        tolerance: maximum relative difference explained by the device's rounding.
        processes: how many have made the logged steps, and how many repeat them; None for the same number.
    """

    def __init__(
        self,
        folder: RunFolder,
        writer: RunWriter,
        step: int,
        tolerance: float = 0.0,
        processes: tuple[int, int] | None = None,
    ) -> None:
        columns = RunReader(folder).metrics()
        logged = dict(zip(columns.steps("loss").tolist(), columns.values("loss").tolist(), strict=True))
        later = [(made, loss) for made, loss in logged.items() if made > step]
        # A logged loss is the mean since the last log, and a resume begins a new mean.
        self._expected = dict(later[0 if step in logged or step == 0 else 1 :][:CHECKED])
        self._writer = writer
        self._from = step
        self._tolerance = tolerance
        self._processes = processes
        self._distances: list[float] = []

    def compare(self, step: int, loss: float) -> str:
        """Compare the loss of a repeated step with the log; after the last comparable one, write the event `receipt`.

        Returns a sentence if the losses differ by more than the tolerance; else an empty string.
        """
        expected = self._expected.pop(step, None)
        if expected is not None:
            self._distances.append(_distance(float(loss), float(expected)))
        if self._distances and not any(left > step for left in self._expected):
            largest, self._expected = max(self._distances), {}
            count, self._distances = len(self._distances), []
            ranks = {} if self._processes is None else {"processes": list(self._processes)}
            self._writer.event(
                "receipt", from_step=self._from, steps=count, exact=largest == 0, largest=largest, **ranks
            )
            if largest > self._tolerance:
                subject = "The repeated step differs" if count == 1 else f"The first {count} repeated steps differ"
                how = f"by up to {100 * largest:.2g} %" if math.isfinite(largest) else "in which losses are finite"
                dropout = "" if self._processes is None else "other random numbers (dropout), "
                return (
                    f"{subject} from the log {how}: the resumed run is not the one that was "
                    f"stopped. Possible causes: {dropout}other versions, threads or data, or a changed checkpoint."
                )
        return ""


def _distance(loss: float, expected: float) -> float:
    """Relative difference of two losses; infinite if only one of them is finite."""
    if loss.hex() == expected.hex():  # also two that are not finite
        return 0.0
    distance = abs(loss - expected) / max(abs(expected), 1e-12)
    return distance if math.isfinite(distance) else math.inf


SECONDS = 1.0
"""Minimum time between two queries."""


class GpuLoad:
    """Queries NVIDIA's driver (package nvidia-ml-py) about the run's GPU, which other processes may use too."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._next = 0.0
        self._queries: dict[str, Callable[[], float]] = {}
        if device.type == "cuda":
            self._queries = {
                "gpu/utilization": lambda: torch.cuda.utilization(device) / 100,
                "gpu/memory": self._memory,
                "gpu/temperature": lambda: float(torch.cuda.temperature(device)),
            }

    def read(self) -> dict[str, float]:
        """Read the current values, at most once a second.

        Returns:
            `gpu/utilization` (share of the driver's last sample period, at most a second, in which a kernel ran, 0
                to 1), `gpu/memory` (share of the GPU's memory used by all processes, 0 to 1) and `gpu/temperature`
                (°C). Values that the driver does not provide (without nvidia-ml-py, or for a MIG partition) are
                omitted. Empty on other devices, and within a second of the last query.
        """
        now = time.monotonic()
        if not self._queries or now < self._next:
            return {}
        self._next = now + SECONDS
        found = {}
        for name, query in list(self._queries.items()):
            try:
                found[name] = query()
            except Exception:  # noqa: BLE001 - only a chart needs it: whatever the driver raises, the run continues
                del self._queries[name]
        return found

    def _memory(self) -> float:
        free, total = torch.cuda.mem_get_info(self._device)
        return 1 - free / total


class ControlRequests:
    """Requests that clients put into a run's folder, see `llf_core.runs.control`.

    A request is answered when it has had its effect, so one for a checkpoint or a stop waits for the checkpoint.
    """

    def __init__(self, folder: RunFolder, writer: RunWriter, live_changes: LiveChanges) -> None:
        self.stop_wanted = False
        self._writer = writer
        self._live_changes = live_changes
        self._inbox = Inbox(folder)
        self._checkpoints = Checkpoints(folder)
        self._waiting: list[Request] = []  # for the next complete checkpoint
        self._evaluations: list[Request] = []

    def stop(self) -> None:
        """Stop with a checkpoint after the current step. Only sets a flag, so it is safe in a signal handler."""
        self.stop_wanted = True

    def handle(self, control: TrainerControl, step: int, watched: SamplePrompts | None) -> None:
        """Handle the requests that have arrived, between two steps, when model and optimizer are consistent."""
        takers = {
            "stop": self._stop,
            "checkpoint": self._save,
            "evaluate": self._evaluate,
            "sample": lambda request, _control, step: self._sample(request, step, watched),
            "set": self._set,
        }
        told = from_all((self._inbox.scan() if is_main() else [], self.stop_wanted))
        self.stop_wanted = any(stop for _, stop in told)
        for request in told[0][0]:
            self._writer.event("request", id=request.id, request=request.type, args=request.args, by=request.by)
            if request.type in takers:
                takers[request.type](request, control, step)
            else:
                self._answer(request, ok=False, message="The file is not a valid request.")
        if self.stop_wanted:
            control.should_training_stop = True
            control.should_save = not self._checkpoints.complete(step)

    def answer_checkpoint(self, step: int) -> None:
        """Answer the requests that waited for the now complete checkpoint."""
        for request in self._waiting:
            self._answer(request, ok=True, message=f"checkpoint-{step} is complete.")
        self._waiting.clear()

    def answer_evaluation(self, metrics: dict[str, float], step: int) -> None:
        """Answer the requests for an evaluation with its mean reward of completions, else the loss."""
        what, value = "evaluation loss", metrics.get("eval_loss", math.nan)
        if "eval_reward" in metrics:
            what, value = "mean reward on the evaluation set", metrics["eval_reward"]
        for request in self._evaluations:
            self._answer(request, ok=True, message=f"The {what} is {value:.4f} at step {step}.")
        self._evaluations.clear()

    def _stop(self, request: Request, _control: TrainerControl, _step: int) -> None:
        self.stop_wanted = True
        self._writer.status(state="stopping", reason=None)
        self._waiting.append(request)

    def _save(self, request: Request, control: TrainerControl, _step: int) -> None:
        control.should_save = True
        self._waiting.append(request)

    def _evaluate(self, request: Request, control: TrainerControl, step: int) -> None:
        try:
            self._live_changes.change({"evaluate": True}, step, request.id, control)
        except ValueError as error:
            self._answer(request, ok=False, message=str(error))
        else:
            self._evaluations.append(request)

    def _sample(self, request: Request, step: int, watched: SamplePrompts | None) -> None:
        if watched is None or not watched.prompts:
            self._answer(request, ok=False, message="No prompts are watched. Add one, or set watched_prompts.")
            return
        watched.answer(step)
        if watched.last == step:
            self._answer(request, ok=True, message=f"Generated at step {step}.")
        else:
            self._answer(request, ok=False, message="The completions could not be generated. See the warning.")

    def _set(self, request: Request, control: TrainerControl, step: int) -> None:
        try:
            said = self._live_changes.change(request.args, step, request.id, control)
        except ValueError as error:
            self._answer(request, ok=False, message=str(error))
        else:
            self._answer(request, ok=True, message=said)

    def _answer(self, request: Request, *, ok: bool, message: str) -> None:
        self._writer.event("answer", id=request.id, request=request.type, ok=ok, message=message)
        if is_main():
            self._inbox.done(request)
