"""Stores reward functions of a cell as files of a run."""

from __future__ import annotations

import ast
from keyword import iskeyword
from typing import TYPE_CHECKING

from llf_core.config.field_specs import field
from llf_core.config.option import split_names
from llf_core.config.problem import ConfigError, Fix, Problem
from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.decorator import name_of, registered, registered_functions
from llf_core.rewards.function_source import HEAD, SourceError, source_of
from llf_core.rewards.signature import Signature
from llf_core.runs.config_file import read_config
from llf_core.untrusted import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.rewards.signature import RewardFunction
    from llf_core.runs import RunFolder

OURS = "import llf_widgets as llf"
KEY = "reward_functions"
"""Config key with the names of the reward functions."""


def functions_by_name(rewards: Iterable[RewardFunction | str]) -> dict[str, RewardFunction | None]:
    """Map names to reward functions, from the list that `llf.train` and `run.resume` accept: functions, names or both.

    Args:
        rewards: functions, or names of built-in or registered ones; also a single one.

    Returns:
        Function by name; None for those given by name.

    Raises:
        TypeError: one is not a function, or has no parameter for the answer.
        ValueError: two have the same name, one has no name or that of a built-in reward, or a signature cannot be
            inspected.
    """
    found: dict[str, RewardFunction | None] = {}
    for one in [rewards] if isinstance(rewards, str) or callable(rewards) else rewards:
        name = one if isinstance(one, str) else name_of(one)
        if name in found:
            raise ValueError(f"Two reward functions are named {name}. Expected different names: @llf.reward(name=…).")
        if not isinstance(one, str):
            Signature.of(one, name)
            if name in BUILT_IN:
                raise ValueError(f"{name} is a built-in reward. Use another name: @llf.reward(name='my_{name}').")
        found[name] = None if isinstance(one, str) else one
    return found


def reward_sources(config: RunConfig, given: Mapping[str, RewardFunction | None] | None = None) -> dict[str, str]:
    """Extract the source of all functions that a config names and that are not built in, for the run's `code/`.

    Args:
        config: names them in `reward_functions`.
        given: functions passed by the caller; others are looked up in the registry. None for none.

    Returns:
        Module source by function name; empty for a stage that uses no rewards.

    Raises:
        ConfigError: a function is unknown, its source cannot be extracted, or functions are given to a stage that uses
            no rewards.
        PluginError: two installed packages declare the same name or key.
        OSError: no process can be started to look for a module that a function imports.
    """
    spec, stage = field(KEY), config.get("stage")
    if spec is None or stage not in spec.stages:
        if given:
            stages = ", ".join(spec.stages if spec else ())
            message = (
                f"Reward functions were given, and stage {stage} does not use them. Expected one of the stages "
                f"{stages}."
            )
            raise ConfigError((Problem("invalid", "stage", stage, message),))
        return {}
    functions: dict[str, RewardFunction] = {}
    for name in config.get(KEY) or ():
        if name in BUILT_IN:
            continue
        function = (given or {}).get(name) or registered(name)
        if function is None:
            raise ConfigError((_unknown(name),))
        functions[name] = function
    return function_sources(functions)


def function_sources(functions: Mapping[str, RewardFunction]) -> dict[str, str]:
    """Extract the source of each function with its dependencies, with failures as problems of the config.

    A form or command then shows it beside the key.

    Args:
        functions: functions by name.

    Returns:
        Module source by name.

    Raises:
        ConfigError: the source of one cannot be extracted.
        OSError: no process can be started to look for a module that a function imports.
    """
    found = {}
    for name, function in functions.items():
        try:
            found[name] = source_of(function, name)
        except SourceError as error:
            raise ConfigError((Problem("invalid", KEY, name, str(error)),)) from error
    return found


def write_code(folder: Path, code: Mapping[str, str]) -> None:
    """Write modules to a run's `code/`, one file `NAME.py` each, from which the trainer loads them.

    Args:
        folder: the folder, created if there is a module to write.
        code: source by name.

    Raises:
        OSError: a file cannot be written.
    """
    for name, text in code.items():
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def replace_code(folder: RunFolder, rewards: Iterable[RewardFunction | str], attempt: int) -> list[str]:
    """Replace reward functions of an ended run, so that it can resume after one of them has failed.

    The old sources are kept in `code/attempt-N/`, so that the history of the run stays complete.

    Args:
        folder: the ended run.
        rewards: the new functions; names of functions, without new code, change nothing.
        attempt: number of the attempt that used the old ones.

    Returns:
        Names of the functions whose source changed.

    Raises:
        ConfigError: the run has no reward function of a name, or the source of one cannot be extracted.
        TypeError: one is not a function, or has no parameter for the answer.
        ValueError: two have the same name, one has no name, or one has that of a built-in reward.
        UnreadableError: a stored source is a link, no regular file, too large, or not UTF-8.
        OSError: a file cannot be written.
    """
    functions = {name: function for name, function in functions_by_name(rewards).items() if function is not None}
    known = reward_names(folder)
    for name in functions:
        if name not in known:
            message = (
                f"The run has no reward function {name}. Expected one of {', '.join(known)}; for another one start "
                "a new run."
            )
            raise ConfigError((Problem("invalid", KEY, name, message),))
    changed = []
    for name, text in function_sources(functions).items():
        path, kept = folder.code / f"{name}.py", folder.code / f"attempt-{attempt}"
        if path.is_file() and read_text(path, root=folder.path) == text:
            continue
        if path.is_file():
            kept.mkdir(exist_ok=True)
            path.replace(kept / path.name)
        write_code(folder.code, {name: text})
        changed.append(name)
    return changed


def reward_names(folder: RunFolder) -> tuple[str, ...]:
    """Names of a run's reward functions, from its `config.yaml`; empty if that cannot be read.

    It works for a run whose config is no longer valid.
    """
    return tuple(split_names(read_config(folder.config).get(KEY) or ""))


def definition_cell(folder: RunFolder) -> str:
    """Build a notebook cell that defines a run's reward functions, so that a copy of the run can be started.

    A module whose names conflict with another one is wrapped in a function.

    Args:
        folder: the run.

    Returns:
        Python source; empty if all functions are built in.

    Raises:
        ValueError: a stored module cannot be parsed, or its name is no identifier.
        UnreadableError: a stored module is a link, no regular file, too large, or not UTF-8.
        OSError: a stored module cannot be read.
    """
    paths = sorted(folder.code.glob("*.py"))
    if not paths:
        return ""
    texts = {path.stem: read_text(path, root=folder.path).removeprefix(HEAD).strip("\n") for path in paths}
    for name, text in texts.items():
        if not name.isidentifier() or iskeyword(name):
            raise ValueError(f"code/{name}.py of {folder.id} has a name that no function has. Expected an identifier.")
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"code/{name}.py of {folder.id} is not Python: {error}.") from None
    bound = {name: _bound(text) for name, text in texts.items()}
    given = {name: _read(text) - bound[name].keys() for name, text in texts.items()}  # which a module takes as they are
    parts = [HEAD, OURS]
    known = _bound(OURS)
    for name, text in texts.items():
        own = bound[name]
        agree = all(known.get(one, meaning) == meaning for one, meaning in own.items())
        if agree and not any(own.keys() & names for other, names in given.items() if other != name):
            known |= own
            parts.append(f'{text}\n\n\nllf.reward(name="{name}")({name})')
        else:
            alone = f"_{name}_alone"
            parts.append(f'{_scope(alone, name, text)}\n\n\nllf.reward(name="{name}")({alone}())')
    return "\n\n".join(parts) + "\n\n"


def _bound(text: str) -> dict[str, str]:
    """The names that a module binds, with the code that binds them."""
    found: dict[str, str] = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                of = getattr(statement, "module", None)
                found |= {(one.asname or one.name).partition(".")[0]: f"{of}.{one.name}" for one in names}
            case ast.FunctionDef(name=name):
                found[name] = ast.dump(statement)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = ast.dump(statement)
    return found


def _read(text: str) -> set[str]:
    """All names that a module reads."""
    return {one.id for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def _scope(called: str, name: str, text: str) -> str:
    """A function that returns the object a module defines under a name."""
    found = ast.parse(f"def {called}():\n    return {name}")
    (function,) = found.body
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 - for the type checker
    function.body = [*ast.parse(text).body, *function.body]
    return ast.unparse(found)


def _unknown(name: str) -> Problem:
    known = [*BUILT_IN, *registered_functions()]
    return Problem(
        "invalid",
        KEY,
        name,
        f"Unknown reward function {name!r}. Expected one of {', '.join(known)}, or a function written in a cell "
        "under @llf.reward, or given as llf.train(config, rewards=[f]); in a terminal: llf train --rewards FILE.",
        tuple(Fix(f"Use {one}", {KEY: one}) for one in BUILT_IN),
    )
