"""Starts a run from a config: writes its folder and the rows of its cell, starts the supervisor, returns."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from dataclasses import replace as with_changes
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llf_core.launch.environment import start_facts
from llf_core.launch.launchers import keys_of_place, launch_problem, start_run
from llf_core.launch.launchers.torchrun import joins, keys_of_variables, run_to_join
from llf_core.launch.queue import enqueue
from llf_core.launch.run import Run
from llf_core.launch.send_run import add_data, config_there, is_sent, place_of_folder, send_run
from llf_core.launch.sync_process import KEY, ask_place
from llf_core.redaction.redact_text import URLS_VARIABLE, split_url_secrets
from llf_core.runs import create_run, update_env
from llf_core.runs.archive import move
from llf_core.runs.creation import write_config
from llf_core.runs.folder import home_folder, run_ids
from llf_core.runs.jsonl import reach
from llf_core.runs.trust import sign_run
from llf_core.untrusted import too_deep
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from llf_core.config import Problem, RunConfig
    from llf_core.rewards.decorator import RewardFunction
    from llf_core.runs import RunFolder

    DataCheck = Callable[[RunConfig], Sequence[Problem]]


def launch(  # noqa: PLR0913 - each of them is optional and named
    config: object,
    *,
    name: str | None = None,
    rows: object = None,
    rewards: Iterable[RewardFunction | str] | None = None,
    home: Path | str | None = None,
    notebook: dict[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    queue: bool = False,
    data_check: DataCheck | None = None,
    on: str | None = None,
) -> Run:
    """Start a run in separate processes and return at once. The run outlives this process.

    Args:
        config: a `RunConfig`, or anything `RunConfig.load` accepts.
        name: display name of the run; None or empty for `default_name`.
        rows: training data that is not in a file: a list of dicts, a DataFrame or a `datasets.Dataset`. Replaces
            `dataset`.
        rewards: reward functions (see `llf_core.rewards.reward`), or names of built-in ones; also a single one.
            Replaces `reward_functions`.
        home: `LLF_HOME`; None for the environment's.
        notebook: `path` and `cell` of the notebook that starts it, for `env.json`.
        env: additional environment variables, for example `HF_TOKEN`; not stored.
        command: program with its arguments, to start instead of the trainer.
        queue: whether it waits until no other run is active on this machine and none has waited longer.
        data_check: see `load_checked_config`.
        on: where it runs, see `llf_core.launch.launchers.keys_of_place`; None for LLaMA-Factory's variables, else the
            config.
    """
    from llf_core.rewards import REWARDS

    functions = None if rewards is None else REWARDS.by_name(rewards)
    overrides = [] if functions is None else [f"{REWARDS.key}={json.dumps(list(functions))}"]
    place = keys_of_variables(os.environ) if on is None else keys_of_place(on)
    overrides += [f"{key}={json.dumps(value)}" for key, value in place.items()]
    root = home_folder(home)

    def variables(whole: Sequence[str]) -> dict[str, str]:
        addresses = {URLS_VARIABLE: " ".join([os.environ.get(URLS_VARIABLE, ""), *whole])} if whole else {}
        return {**addresses, **(env or {})}

    if rows is None:
        loaded, whole = separate_url_secrets(load_checked_config(config, overrides, root, command, data_check))
        if joins(loaded.flat()):
            return _join(loaded, root, env)

        def fill(new: RunFolder) -> None:
            if is_sent(loaded):
                add_data(new, config_there(loaded))
            _fill(new, loaded, notebook, None, queue)

        return _begin(loaded, functions, name, root, fill, variables(whole), command)

    # Where a run lives is known when it is made, and it is made of a config that names its data.
    with temporary_rows(rows, root) as (file, mark):
        named = [*overrides, f"dataset={json.dumps([str(file)])}"]
        loaded, whole = separate_url_secrets(load_checked_config(config, named, root, command, data_check))

        if joins(loaded.flat()):
            return _join(loaded, root, env)

        def fill_with_rows(new: RunFolder) -> None:
            new.data.mkdir()
            move(file, new.data / file.name)
            # relative to config.yaml: the folder may be moved
            inside = config_there(loaded).replace(dataset=f"data/{file.name}")
            write_config(new, inside.yaml(defaults=True))
            _fill(new, inside, notebook, mark, queue)

        return _begin(loaded, functions, name, root, fill_with_rows, variables(whole), command)


def _begin(  # noqa: PLR0913, PLR0917 - what `launch` was given
    config: RunConfig,
    functions: Mapping[str, RewardFunction | None] | None,
    name: str | None,
    root: Path,
    fill: Callable[[RunFolder], None],
    env: Mapping[str, str],
    command: Sequence[str] | None,
) -> Run:
    """Make the folder of a run and start the run, here or on the host that its config names."""
    with place_of_folder(config, root) as place:
        folder = _create(config_there(config), functions, name, place, fill)
        reach("run.created")
        if is_sent(config):
            return Run(send_run(folder, str(config.launch.launch_target), root, env, command))
    start_run(folder, {**env, "LLF_HOME": str(root)}, command)
    return Run(folder)


def _join(config: RunConfig, root: Path, env: Mapping[str, str] | None) -> Run:
    folder = run_to_join(config, root)
    start_run(folder, {**(env or {}), "LLF_HOME": str(root)})
    return Run(folder)


def separate_url_secrets(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Split a config into the stored version and its full URLs with credentials, which go into the environment."""
    changes, whole = split_url_secrets(config.flat())
    return (config.replace(**changes) if changes else config), whole


def load_checked_config(
    config: object,
    overrides: Sequence[str],
    home: Path | str | None,
    command: Sequence[str] | None,
    data_check: DataCheck | None = None,
) -> RunConfig:
    """Load a config and check that everything it refers to exists on this machine, and that `sync_to` can be written.

    Sends no requests to a hub.

    Args:
        overrides: `key=value`.
        command: see `launch`; another trainer may accept other names.
        data_check: finds problems in the first records of the data sets of a config without other errors, such as
            columns that match no format: `llf_core.data.precheck.dataset_problems`; None checks names only.
    """
    from llf_core.config import Problem, validate
    from llf_core.config.name_checks import check

    report = validate(config, overrides)
    if command is None and not is_sent(report.config):  # what another host lacks is found there
        root = home_folder(home)
        report = check(report, runs=run_ids(root), home=root, starting=True, seconds=0)
    if report.ok and (problem := launch_problem(report.config)) is not None:
        report = report.with_problems((*report.problems, problem))
    if data_check is not None and report.ok and not is_sent(report.config):
        found = (with_changes(problem, line=report.lines.get(problem.key)) for problem in data_check(report.config))
        report = report.with_problems((*report.problems, *found))
    if command is None and report.ok and not is_sent(report.config) and (place := report.config.launch.sync_to):
        message = ask_place("writable", place)
        if message:
            wrong = Problem("unresolved", KEY, place, message, line=report.lines.get(KEY), keys=(KEY,))
            report = report.with_problems((*report.problems, wrong))
    return report.accepted()


def _fill(new: RunFolder, config: RunConfig, notebook: dict[str, str] | None, mark: str | None, queue: bool) -> None:
    """Write everything known before the start, before the folder becomes visible."""
    update_env(new, **start_facts(config, notebook, mark))
    if queue:
        enqueue(new)
    sign_run(new)


def _create(
    config: RunConfig,
    rewards: Mapping[str, RewardFunction | None] | None,
    name: str | None,
    root: Path,
    fill: Callable[[RunFolder], None],
) -> RunFolder:
    from llf_core.metrics import metric_sources
    from llf_core.rewards import reward_sources
    from llf_core.user_functions.function_source import joined, write_code

    code = joined(reward_sources(config, rewards), metric_sources(config.evaluation.metrics or ()))

    def everything(new: RunFolder) -> None:
        write_code(new.code, code)
        fill(new)

    return create_run(config.yaml(defaults=True), name or default_name(config), root, everything)


def default_name(config: RunConfig) -> str:
    """Name of a run that was given none: `run_name`, else `<model>-<stage>-<method>`."""
    if config.training.run_name:
        return config.training.run_name
    model = Path(str(config.get("model_name_or_path"))).name
    return f"{model}-{config.get('stage')}-{config.get('finetuning_type')}"


ArrowT = TypeVar("ArrowT")
FINGERPRINT = 16  # hex digits

MAX_ROW_DEPTH = 32
"""Maximum nesting of a row: Parquet's readers refuse a schema of 100 levels, and a list takes two."""


class RowsError(UserError, ValueError):
    """The rows cannot be stored as a table; the message says what was expected."""


def to_table(rows: object) -> pa.Table:
    """Convert rows from a cell to a pyarrow table.

    Args:
        rows: an iterable of dicts, a pandas or polars DataFrame, a `datasets.Dataset`, or a pyarrow table. Types are
            recognized by their methods, without imports of these libraries.

    Raises:
        RowsError: the type is not supported, there are no rows, a row contains itself, a column has mixed types, or two
            have one name.
    """
    import pyarrow as pa

    if isinstance(rows, pa.Table):
        table = rows
    elif hasattr(rows, "iloc") and hasattr(rows, "columns"):  # pandas
        table = _checked(lambda: pa.Table.from_pandas(rows, preserve_index=False))
    elif hasattr(rows, "with_format") and hasattr(rows, "num_rows"):  # datasets, not a stream of it
        table = rows.with_format("arrow")[:]
    elif hasattr(rows, "to_arrow"):  # polars
        table = rows.to_arrow()
    elif isinstance(rows, dict | str | bytes) or not isinstance(rows, Iterable):
        raise RowsError(f"The data set is a {type(rows).__name__}. Expected a list of dicts, a DataFrame or a Dataset.")
    else:
        table = _of_dicts(list(rows))
    if not isinstance(table, pa.Table):  # a column of polars
        raise RowsError(f"The data set is a {type(rows).__name__}. Expected a list of dicts, a DataFrame or a Dataset.")
    if len(set(table.column_names)) < table.num_columns:
        raise RowsError(f"The data set has the columns {', '.join(table.column_names)}. Expected each name once.")
    if table.num_rows == 0:
        raise RowsError("The data set has no rows. Expected at least one.")
    return table.replace_schema_metadata(None)


def _of_dicts(given: list[object]) -> pa.Table:
    import pyarrow as pa

    rows: list[dict[object, object]] = []
    for number, row in enumerate(given, start=1):
        if not isinstance(row, dict):
            raise RowsError(f"Row {number} of the data set is a {type(row).__name__}. Expected a dict.")
        if too_deep(row, MAX_ROW_DEPTH):  # of a cycle, pyarrow would end the process
            raise RowsError(
                f"Row {number} of the data set contains itself, or is nested more than {MAX_ROW_DEPTH} levels deep. "
                "Expected plain data."
            )
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not all(isinstance(name, str) for name in names):
        raise RowsError("A row has a key that is not a string. Expected column names as keys.")
    if any("\ud800" <= letter <= "\udfff" for name in names for letter in str(name)):
        raise RowsError("A row has a key with a lone surrogate. Expected column names that can be encoded as UTF-8.")
    return pa.table({name: _checked(partial(pa.array, [row.get(name) for row in rows]), name) for name in names})


def _checked(make: Callable[[], ArrowT], name: object = None) -> ArrowT:
    import pyarrow as pa

    try:
        return make()
    except (pa.ArrowException, OverflowError, ValueError) as error:  # pyarrow's own for columns of one name is plain
        where = f"Column {name!r} of the data set" if name else "The data set"
        raise RowsError(
            f"{where} cannot be converted to a column: {error}. Expected values of one type, for example only strings."
        ) from None


def fingerprint(path: Path) -> str:
    """Hash columns, types and values of a Parquet file: 16 hex digits, whichever library made the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    sink = _Hash()
    with pa.PythonFile(sink, mode="w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.hash.hexdigest()[:FINGERPRINT]


class _Hash:
    """A file object that only computes the hash of what is written."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def write_rows(rows: object, folder: Path) -> tuple[Path, str]:
    """Write rows atomically to `rows-<fingerprint>.parquet`; returns path and fingerprint.

    Raises:
        RowsError: see `to_table`; or Parquet cannot hold a value, such as an empty dict.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = to_table(rows)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".rows-{os.getpid()}.new"
    # Without Arrow's own schema, text is text, whichever of Arrow's two kinds a library uses.
    try:
        pq.write_table(table, partial, store_schema=False)
        mark = fingerprint(partial)
        path = folder / f"rows-{mark}.parquet"
        partial.replace(path)
    except pa.ArrowException as error:
        raise RowsError(
            f"The data set cannot be stored as Parquet: {error}. Expected no dict without keys as a value."
        ) from None
    finally:
        with suppress(OSError):  # half a file of a full disk
            partial.unlink()
    return path, mark


@contextmanager
def temporary_rows(rows: object, root: Path) -> Iterator[tuple[Path, str]]:
    """Write rows to a temporary file below `LLF_HOME`, removed at the end of the block; yields path and fingerprint."""
    (root / "cache").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / "cache", prefix="rows-") as folder:
        yield write_rows(rows, Path(folder))
