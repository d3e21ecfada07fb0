from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of, optimizer_of
from llf_core.config.weight_shapes import count
from llf_core.estimate.model_sizes import model_sizes
from llf_core.estimate.weight_count import trained_parameters

if TYPE_CHECKING:
    from llf_core.config import RunConfig

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
