"""Sweeps: a queued run for each combination of some values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llf_core.launch.combinations import combinations, label
from llf_core.launch.start import checked, default_name, launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llf_core.launch.run import Run


def sweep(
    config: Any,
    values: Mapping[str, Sequence[Any]],
    *,
    name: str | None = None,
    rows: Any = None,
    rewards: Iterable[Any] | None = None,
    **options: Any,
) -> list[Run]:
    """Starts a run for each combination of some values, one after the other.

    Args:
        config: what `RunConfig.load` takes.
        values: for each key the values that it takes, e.g. `{"learning_rate": [1e-4, 3e-4], "lora_rank": [8, 32]}`.
        name: in front of each run's name; what differs follows.
        rows: the training data itself, see `launch`.
        rewards: reward functions, see `launch`.
        options: further ones of `launch`.

    Returns:
        The runs, in the order of the combinations: the last key changes fastest.

    Raises:
        ConfigError: a combination has errors; no run was started.
        ValueError: no values, or more than `MOST_RUNS` runs.
        RuntimeError: a run could not be started; the message says how many wait already.
    """
    from llf_core.config import RunConfig
    from llf_core.config.name_checks.data_set_location import DEMO
    from llf_core.rewards.stored_functions import KEY, by_name

    chosen = list(combinations(values))
    rewards = None if rewards is None else list(rewards)
    overrides = [] if rewards is None else [f"{KEY}={json.dumps(list(by_name(rewards)))}"]
    loaded = RunConfig.load(config, [*overrides, *([f"dataset={DEMO}"] if rows is not None else [])])
    place = options.get("home"), options.get("command")
    configs = [checked(loaded.flat() | one, (), *place).flat() for one in chosen]  # all before the first is started
    started: list[Run] = []
    for made, one in zip(configs, chosen, strict=True):
        if rows is not None:
            del made["dataset"]
        try:
            called = f"{name or default_name(loaded)} {label(one)}"
            started.append(launch(made, name=called, rows=rows, rewards=rewards, queue=True, **options))
        except (OSError, RuntimeError) as error:
            if not started:
                raise
            waits = f"{len(started)} of the {len(chosen)} runs were started before and stay in the queue."
            raise RuntimeError(f"{error} {waits}") from error
    return started
