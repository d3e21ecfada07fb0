"""Sweeps: one queued run per combination of values."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import exact
from llf_core.launch.start import default_name, launch, load_checked_config
from llf_core.runs.folder import home_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llf_core.launch.run import Run
    from llf_core.rewards.decorator import RewardFunction

MAX_RUNS = 100


def sweep(
    config: object,
    values: Mapping[str, Sequence[object]],
    *,
    name: str | None = None,
    rows: object = None,
    rewards: Iterable[RewardFunction | str] | None = None,
    **options: Any,
) -> list[Run]:
    """Queue a run for each combination of values; they train one after the other on this machine.

    Args:
        config: anything `RunConfig.load` accepts.
        values: values by key, e.g. `{"learning_rate": [1e-4, 3e-4], "lora_rank": [8, 32]}`.
        name: prefix of each run's name, followed by its values; None for the default name of a run.
        rows: training data, see `launch`.
        rewards: reward functions, see `launch`.
        options: further arguments of `launch`, except `queue`.

    Returns:
        The runs in order of the combinations: the last key changes fastest.

    Raises:
        ConfigError: a combination has errors; no run was started.
        RowsError: the rows are not a table, or Parquet cannot hold one of their values.
        RuntimeError: a run could not be started; the message says how many are queued.
    """
    from llf_core.config import RunConfig
    from llf_core.config.classify_key import without_renamed
    from llf_core.launch.start import temporary_rows, to_table
    from llf_core.rewards import REWARDS

    if not isinstance(values, Mapping):
        raise TypeError(f"The values are {str(values)[:80]}. Expected lists by key: {{'learning_rate': [1e-4, 3e-4]}}.")
    chosen = list(combinations(values))
    functions = None if rewards is None else REWARDS.by_name(rewards)
    if functions is not None:  # once: an iterator has no second pass
        rewards = [name if one is None else one for name, one in functions.items()]
    if rows is not None:
        rows = to_table(rows)  # once too
    overrides = [] if functions is None else [f"{REWARDS.key}={json.dumps(list(functions))}"]
    place = options.get("home"), options.get("command"), options.get("data_check")
    with nullcontext() if rows is None else temporary_rows(rows, home_folder(place[0])) as waiting:
        data = [] if waiting is None else [f"dataset={json.dumps([str(waiting[0])])}"]
        loaded = RunConfig.load(config, [*overrides, *data])
        configs = [
            load_checked_config(without_renamed(loaded.flat(), one) | one, (), *place).flat() for one in chosen
        ]  # all before the first is started
    started: list[Run] = []
    for made, one in zip(configs, chosen, strict=True):
        if rows is not None:
            del made["dataset"]
        try:
            called = f"{name or default_name(loaded)} {combination_label(one)}"
            started.append(launch(made, name=called, rows=rows, rewards=rewards, queue=True, **options))
        except (OSError, RuntimeError) as error:
            if not started:
                raise
            waits = f"{len(started)} of the {len(chosen)} runs had already been started and stay in the queue."
            raise RuntimeError(f"{error} {waits}") from error
    return started


def combinations(values: Mapping[str, Sequence[object]]) -> Iterator[dict[str, Any]]:
    """Iterate over all combinations of a sweep; the last key changes fastest.

    Raises:
        ValueError: there are no values, a key has no list of values, or there are more than `MAX_RUNS` combinations.
    """
    lists = {key: _values(key, given) for key, given in values.items()}
    total = math.prod(map(len, lists.values()))
    if not lists or total > MAX_RUNS:
        raise ValueError(f"The sweep has {total if lists else 0} runs. Expected 1 to {MAX_RUNS}.")
    for one in itertools.product(*lists.values()):
        yield dict(zip(lists, one, strict=True))


def _values(key: str, given: object) -> Sequence[object]:
    found = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(found, Sequence) or isinstance(found, str | bytes) or not found:
        raise ValueError(f"{key} has the values {given!r}. Expected a non-empty list.")
    return found


def combination_label(one: Mapping[str, object]) -> str:
    """Format a combination for a run's name: `learning_rate=1e-4 quantization_bit=null`."""
    return " ".join(f"{key}={_word(value)}" for key, value in one.items())


def _word(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return exact(value)
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    return (
        json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, bool | list | tuple | dict)
        else str(value)
    )
