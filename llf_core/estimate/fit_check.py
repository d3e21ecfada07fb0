"""Forecasts whether a run fits this machine, how long it takes, and what would make it fit."""

from __future__ import annotations

import dataclasses
import math
from copy import copy
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of, optimizer_of
from llf_core.config.rule import ConfigError
from llf_core.config.sections import STRATEGIES
from llf_core.config.weight_shapes import count
from llf_core.estimate.cheaper_changes import Change, cheaper_changes
from llf_core.estimate.devices import MEMORY_SHARE, device_of, find_devices
from llf_core.estimate.example_lengths import full_length
from llf_core.estimate.fit_result import FitCheck, Room, StrategyForecast
from llf_core.estimate.forecaster import Forecaster
from llf_core.estimate.loading import forecast_loading
from llf_core.estimate.model_sizes import model_sizes, trained_parameters
from llf_core.estimate.past_runs import known_lengths
from llf_core.estimate.strategies import Shares
from llf_core.runs import free_bytes, home

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.estimate.devices import Device
    from llf_core.estimate.example_lengths import ExampleLengths
    from llf_core.estimate.fit_result import MemoryParts
    from llf_core.estimate.loading import Loading


def check_fit(
    config: RunConfig, lengths: ExampleLengths | None = None, devices: tuple[Device, ...] | None = None
) -> FitCheck:
    """Forecast memory, disk and time of a run from its config, before anything is loaded or downloaded.

    It takes milliseconds after the first call of a process.

    Args:
        lengths: lengths of its examples; None: as a past run counted them, else `cutoff_len`.
        devices: devices of the machine, at least one; None for those that are found.
    """
    found = find_devices() if devices is None else devices
    device = device_of(config, found)
    known = lengths or known_lengths(config) or full_length(config)
    forecast = Forecaster(config, known, device)
    parts, checkpointing = forecast.memory()
    disk, free = forecast_disk(config), free_bytes(home())
    loading = None if forecast.step is None else forecast_loading(config, forecast.step)
    needed = 0 if parts is None else _held_by_all(forecast, parts, loading)
    rooms = tuple(
        Room(
            one.name,
            one.kind,
            one.free,
            int(MEMORY_SHARE * one.free),
            one.total,
            needed if one is device else 0,
            one is not device or needed <= int(MEMORY_SHARE * one.free),
        )
        for one in sorted(found, key=lambda one: one is not device)
    )
    changes: tuple[Change, ...] = ()
    if parts is not None and not rooms[0].fits:
        changes = cheaper_changes(
            config, lambda changed: _needed(changed, known, device), int(MEMORY_SHARE * device.free)
        )
    if parts is not None and loading is not None and not loading.beside and loading.total <= parts.total:
        loading = None
    return FitCheck(
        memory=parts,
        rooms=rooms,
        disk=disk,
        disk_free=free,
        duration=forecast.duration(checkpointing=checkpointing),
        checkpointing=checkpointing,
        precision=forecast.precision.reason,
        basis=forecast.basis(),
        changes=changes,
        exact=forecast.sizes is None or forecast.sizes.exact,
        state=forecast.like(checkpointing=checkpointing),
        loading=loading,
        processes=config.launch.ranks,
        strategies=_strategies(forecast, checkpointing=checkpointing),
    )


def _strategies(forecast: Forecaster, *, checkpointing: bool) -> tuple[StrategyForecast, ...]:
    """Forecast of each strategy for several processes."""
    step, launch = forecast.step, forecast.config.launch
    found: list[StrategyForecast] = []
    if step is None or launch.ranks == 1:
        return ()
    for name, strategy in STRATEGIES.items():
        if strategy.copies_machines and launch.num_nodes == 1:
            continue
        other = copy(forecast)
        other.step = dataclasses.replace(step, shares=Shares(name, launch.ranks, launch.num_nodes))
        try:
            forecast.config.replace(strategy=name)
        except (ConfigError, ValueError):
            continue
        parts, traffic = other.corrected_memory(checkpointing=checkpointing), other.traffic
        if parts is not None and traffic is not None:
            found.append(StrategyForecast(name, parts, traffic.sent, traffic.seconds))
    return tuple(found)


def _needed(config: RunConfig, lengths: ExampleLengths, device: Device) -> int | None:
    if config.get("pure_bf16") and device.bf16 is False:  # the trainer refuses it there
        return None
    forecast = Forecaster(config, lengths, device)
    parts, _ = forecast.memory()
    if parts is None or forecast.step is None:
        return None
    return _held_by_all(forecast, parts, forecast_loading(config, forecast.step))


def _held_by_all(forecast: Forecaster, parts: MemoryParts, loading: Loading | None) -> int:
    """Bytes that the processes which share the device hold at their peaks."""
    first = others = _held(parts, loading)
    step = forecast.step
    if step is not None and loading is not None and loading.alone and not loading.beside:
        weights = step.base_weights + step.adapter_weights  # which the first one's allocator keeps
        others = parts.total - weights + step.shares.held(weights)
    return first + (forecast.processes - 1) * others


def _held(parts: MemoryParts, loading: Loading | None) -> int:
    """Bytes at the peak of training or of loading, without pages of the weight files, which the system can drop."""
    return max(parts.total, 0 if loading is None or loading.beside else loading.total - loading.mapped)


WIDTH = 4  # bytes of a parameter in a checkpoint: float32, or less
OTHER_BYTES = 8_000_000  # tokenizer, state and logs of a checkpoint
KEPT_CHECKPOINTS = 2  # checkpoints that stay unless `save_total_limit` says otherwise


def forecast_disk(config: RunConfig) -> int | None:
    """Forecast the peak disk usage of a run in bytes: its result, and the checkpoints that exist at the same time.

    An upper bound without the copy in `output_dir` and without downloads; None if the sizes or the number of trained
    parameters are unknown.
    """
    sizes = model_sizes(config.model.model_name_or_path, config.model.cache_dir)
    weights = None if sizes is None else sizes.weights
    learned = None if weights is None else trained_parameters(config, weights)
    if weights is None or learned is None:
        return None
    saved = learned if method_of(config).adapter else count(weights)
    optimizer = optimizer_of(config)
    whole = learned == count(weights)  # else it is not known which weights are trained
    state = optimizer.memory_for(config, weights).state_bytes if whole else learned * optimizer.state_bytes
    checkpoint = int(WIDTH * saved + state) + OTHER_BYTES
    return _checkpoints(config) * checkpoint + WIDTH * saved + OTHER_BYTES


def _checkpoints(config: RunConfig) -> int:
    """Maximum number at a time: those kept, the best, and the one being written."""
    training = config.training
    at_most = (training.save_total_limit or KEPT_CHECKPOINTS) + 2
    if training.save_strategy == "no":
        return 1
    if training.save_strategy == "steps" and training.max_steps > 0 and training.save_steps >= 1:
        return min(at_most, math.ceil(training.max_steps / training.save_steps))
    return at_most
