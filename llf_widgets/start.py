"""`llf.train`: starts a run from a cell."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from llf_core.launch import launch
from llf_core.launch import sweep as sweep_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.launch import Run


def train(
    config: RunConfig | dict[str, Any] | str | Path,
    *,
    rewards: Iterable[Any] | None = None,
    name: str | None = None,
    queue: bool = False,
    on: str | None = None,
) -> Run:
    """Start a run in a separate process and return at once; the run survives the kernel.

    Args:
        config: a `RunConfig`, a dict of keys, YAML text, or the path of a YAML or JSON file. In a dict, `dataset` may
            also be the rows themselves: a list of dicts, a DataFrame or a `datasets.Dataset`.
        rewards: reward functions (see `reward`), or names of built-in ones; a single one needs no list. Replaces
            `reward_functions`; None for those of the config.
        name: display name of the run; None for `run_name` of the config, else model, stage and method.
        queue: whether it waits until no other run is active on this machine and none has waited longer.
        on: where it runs: `2 processes` or `4 gpus` of this machine, `ssh://host`, or `local`; None for what the config
            says.

    Raises:
        ConfigError: the config has errors, or refers to something this machine does not have, or the first records of a
            data set match no format; a reward function does not exist or cannot be stored. `.problems` lists them with
            fixes.
        RowsError: the rows are not a table, or Parquet cannot hold one of their values.

    Example:
        >>> run = llf.train({"dataset": rows, "finetuning_type": "lora"})  # doctest: +SKIP
        >>> llf.Monitor(run)  # doctest: +SKIP
    """
    from llf_core.data.precheck import dataset_problems

    config, rows = split_rows(config)
    return launch(
        config,
        name=name,
        rows=rows,
        rewards=rewards,
        notebook=notebook_location(),
        queue=queue,
        data_check=dataset_problems,
        on=on,
    )


def sweep(
    config: RunConfig | dict[str, Any] | str | Path,
    values: Mapping[str, Sequence[Any]],
    *,
    rewards: Iterable[Any] | None = None,
    name: str | None = None,
) -> list[Run]:
    """Start a run for each combination of values, one after the other on this machine.

    Args:
        config: as for `train`.
        values: a list of values for each config key. The last key changes fastest.
        rewards: as for `train`; None for those of the config.
        name: prefix of each run's name, followed by its values; None for the default name of a run.

    Returns:
        The runs in order of execution; `llf.Compare` compares up to eight of them.

    Raises:
        ConfigError: a combination has errors, see `train`; no run was started.
        RowsError: the rows are not a table, or Parquet cannot hold one of their values.

    Example:
        >>> runs = llf.sweep(config, {"learning_rate": [1e-4, 3e-4, 1e-3]})  # doctest: +SKIP
        >>> llf.Compare(runs)  # doctest: +SKIP
    """
    from llf_core.data.precheck import dataset_problems

    config, rows = split_rows(config)
    where = notebook_location()
    return sweep_runs(
        config, values, name=name, rows=rows, rewards=rewards, notebook=where, data_check=dataset_problems
    )


def split_rows(config: object) -> tuple[Any, Any]:
    """Split a config with rows in `dataset` into a copy without them, and the rows; None for other configs' rows."""
    if not isinstance(config, dict) or _names_data(config.get("dataset")):
        return config, None
    rest = dict(config)
    return rest, rest.pop("dataset")


def _names_data(dataset: object) -> bool:
    if isinstance(dataset, list | tuple):
        return all(isinstance(name, str) for name in dataset) and bool(dataset)
    return dataset is None or isinstance(dataset, str | os.PathLike)


def notebook_location() -> dict[str, str] | None:
    """Path (empty if unknown) and cell of the running notebook, for `env.json`; None outside a notebook kernel."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    if shell is None or not shell.has_trait("kernel"):
        return None
    path = os.environ.get("JPY_SESSION_NAME") or shell.user_ns.get("__vsc_ipynb_file__", "")
    parent = shell.get_parent() or {}
    cell = parent.get("metadata", {}).get("cellId") or f"In [{shell.execution_count}]"
    return {"path": str(path), "cell": str(cell)}
