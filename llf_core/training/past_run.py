"""A run's row in the table of past runs, and the forecast from this table before its first step."""

from __future__ import annotations

import dataclasses
import logging
import os
import resource
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from llf_core.config import ConfigError
from llf_core.data.streaming import Stream
from llf_core.data.text_lengths import most_patches
from llf_core.estimate import Forecaster, find_devices
from llf_core.estimate.example_lengths import ExampleLengths, full_length, of_lengths
from llf_core.estimate.past_runs import add_past_run, data_key
from llf_core.estimate.planned_step import CUDA_CONTEXT
from llf_core.runs import RunReader
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.estimate.past_runs import PastRun
    from llf_core.stages.base.context import TrainingContext

logger = logging.getLogger(__name__)

WARM_STEPS = 1
"""First logged steps that are left out, in which kernels are chosen and memory is allocated."""

MEASURED_WARM_STEPS = 2
"""The same for a measurement: its second step takes the memory again that the first released."""

LEAST_STEPS = 2
"""Minimum number of timed steps of a run; a measurement may have one."""

PAUSE = 3.0
"""Maximum of a step's seconds per token as a multiple of the usual; more is a pause of the machine."""
_WHOLE = 2  # column of the counts: tokens before truncation


def write_forecast(context: TrainingContext, *, checkpointing: bool) -> None:
    """Write the forecast of time and memory as an event; nothing if device or duration are unknown."""
    forecast = _forecaster(context)
    duration = None if forecast is None else forecast.duration(checkpointing=checkpointing)
    if forecast is None or duration is None:
        return
    parts = forecast.corrected_memory(checkpointing=checkpointing)
    context.writer.event(
        "forecast",
        step_seconds=round(duration.step_seconds, 4),
        low=round(duration.step_seconds / duration.spread, 4),
        high=round(duration.step_seconds * duration.spread, 4),
        memory=None if parts is None else parts.total,
        reason=duration.basis,
    )


def add_to_past_runs(context: TrainingContext, *, checkpointing: bool, measured: bool = False) -> PastRun | None:
    """Add the speed and peak memory of the current attempt to the table of past runs. Errors are only logged.

    None after an error, with too few steps, in one of several processes, or if device or model are not known well
    enough to forecast. `measured`: only a few steps were made, the first with the longest examples.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return None
    try:
        found = _past_run(context, checkpointing=checkpointing, measured=measured)
        if found is not None:
            add_past_run(found)
    except (OSError, UserError, ValueError) as error:
        logger.info("This run is not in the table of past runs: %s", error)
        return None
    return found


def _past_run(context: TrainingContext, *, checkpointing: bool, measured: bool) -> PastRun | None:
    metrics = RunReader(context.folder).metrics()
    if "step_seconds" not in metrics.names or "tokens" not in metrics.names:
        return None
    own_steps = set(metrics.times(context.writer.attempt)[0].tolist())
    logged = [(step, seconds) for step, seconds in zip(
        metrics.steps("step_seconds"), metrics.values("step_seconds"), strict=True
    ) if step in own_steps]  # fmt: skip
    seconds = {step: float(one) for step, one in logged[MEASURED_WARM_STEPS if measured else WARM_STEPS :]}
    forecast = _forecaster(context)
    if forecast is None or len(seconds) < (1 if measured else LEAST_STEPS):
        return None
    steps, tokens = metrics.steps("tokens"), metrics.values("tokens")
    each = np.diff(tokens) / np.maximum(1, np.diff(steps))
    like = forecast.like(checkpointing=checkpointing, tokens=float(each.mean()))
    if like is None:
        return None
    own = forecast.lengths
    return dataclasses.replace(
        like,
        time=time.time(),
        seconds=mean_seconds(seconds, dict(zip(steps[1:].tolist(), each.tolist(), strict=True))),
        memory=peak_memory(context.plan.device),
        data=data_key(context.config) if own.exact else "",
        examples=own.examples or 0,
        quantiles=tuple(int(one) for one in own.lengths) if own.exact else (),
        patches=own.patches,
        measured=measured,
    )


def mean_seconds(seconds: Mapping[int, float], tokens: Mapping[int, float]) -> float:
    """Mean seconds of a step, with each step limited to `PAUSE` times the usual seconds per token.

    The median would ignore that long steps take more of the time of a run. Steps without tokens are left out unless
    all are.
    """
    known = [step for step in seconds if tokens.get(step, 0) > 0]
    if not known:
        return statistics.median(seconds.values())
    usual = statistics.median(seconds[step] / tokens[step] for step in known)
    return statistics.fmean(min(seconds[step], PAUSE * usual * tokens[step]) for step in known)


def _forecaster(context: TrainingContext) -> Forecaster | None:
    """Forecast with the lengths of the prepared examples; None if the device is not found."""
    device = next((one for one in find_devices() if one.kind == context.plan.device), None)
    if device is None:
        return None
    try:
        return Forecaster(context.config, prepared_lengths(context), device)
    except (OSError, UserError, ConfigError) as error:
        logger.info("No forecast: %s", error)
        return None


def prepared_lengths(context: TrainingContext) -> ExampleLengths:
    """Lengths of the prepared examples in tokens, before truncation; `cutoff_len` each if unknown (streams)."""
    counts = context.data.counts
    if isinstance(context.data.train, Stream) or not len(counts):
        return full_length(context.config)
    basis = "Lengths of the prepared examples."
    return of_lengths(counts[:, _WHOLE], basis=basis, exact=True, patches=patches_of(context))


def patches_of(context: TrainingContext) -> int:
    """Maximum number of image and video patches of an example; 0 for a text model or unreadable data."""
    if context.processor is None:
        return 0
    try:
        return most_patches(context.config)
    except (OSError, UserError) as error:
        logger.info("The patches of images and videos are not counted: %s", error)
        return 0


_RESET_PEAK = "5"
"""Resets the peak of the resident set, see proc(5), `/proc/pid/clear_refs`."""


def reset_peak(device: str) -> None:
    """Reset the peak memory of `cuda`, `mps` or `cpu` if the system can, so that loading the model does not count."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # not Linux, or forbidden: the peak of the whole process counts
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")


def peak_memory(device: str) -> int:
    """Peak bytes since `reset_peak` (else since the process began): reserved memory and context, or resident set."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved() + CUDA_CONTEXT
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
