"""From the functions of a cell to files of a run."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from llf_core.config.field_specs import field
from llf_core.config.option import split_names
from llf_core.config.problem import ConfigError, Fix, Problem
from llf_core.door import read_text
from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.decorator import functions, name_of, recorded
from llf_core.rewards.function_source import HEAD, SourceError, source_of
from llf_core.rewards.signature import Signature
from llf_core.runs.config_file import read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder

OURS = "import llf_widgets as llf"
KEY = "reward_functions"
"""The config's key for their names."""


def by_name(rewards: Iterable[Any]) -> dict[str, Callable[..., Any] | None]:
    """Reward functions by name.

    Args:
        rewards: functions, or names of built-in or recorded ones.

    Returns:
        Name to function; None of what is given by name.

    Raises:
        TypeError: one is no function, or takes no answer.
        ValueError: two are called the same.
    """
    found: dict[str, Callable[..., Any] | None] = {}
    for one in [rewards] if isinstance(rewards, str) or callable(rewards) else rewards:
        name = one if isinstance(one, str) else name_of(one)
        if name in found:
            raise ValueError(f"Two reward functions are called {name}. Expected different names: @llf.reward(name=…).")
        if not isinstance(one, str):
            Signature.of(one, name)
            if name in BUILT_IN:
                raise ValueError(f"{name} is a built-in reward. Call yours otherwise: @llf.reward(name='my_{name}').")
        found[name] = None if isinstance(one, str) else one
    return found


def code_of(config: RunConfig, given: Mapping[str, Callable[..., Any] | None] | None = None) -> dict[str, str]:
    """The source of all functions that a config names and LLF does not bring.

    Args:
        config: names them in `reward_functions`.
        given: functions that were handed over; others are looked up among the recorded ones.

    Returns:
        A module for each, by its name.

    Raises:
        ConfigError: there is no function of a name, its source cannot be handed over, or the stage takes none.
    """
    spec, stage = field(KEY), config.get("stage")
    if spec is None or stage not in spec.stages:
        if given:
            stages = " and ".join(spec.stages if spec else ())
            message = f"Reward functions were given, and stage {stage} takes none. Expected one of the stages {stages}."
            raise ConfigError((Problem("invalid", "stage", stage, message),))
        return {}
    functions: dict[str, Callable[..., Any]] = {}
    for name in config.get(KEY) or ():
        if name in BUILT_IN:
            continue
        function = (given or {}).get(name) or recorded(name)
        if function is None:
            raise ConfigError((_unknown(name),))
        functions[name] = function
    return sources_of(functions)


def sources_of(functions: Mapping[str, Callable[..., Any]]) -> dict[str, str]:
    """The source of each function, with what it uses.

    Raises:
        ConfigError: one cannot be handed over.
    """
    found = {}
    for name, function in functions.items():
        try:
            found[name] = source_of(function, name)
        except SourceError as error:
            raise ConfigError((Problem("invalid", KEY, name, str(error)),)) from error
    return found


def write_code(folder: Path, code: Mapping[str, str]) -> None:
    """Writes modules into a run's `code/`."""
    for name, text in code.items():
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def replace_code(folder: RunFolder, rewards: Iterable[Any], attempt: int) -> list[str]:
    """Puts mended functions in the place of those that a run has; the old ones are kept in `code/attempt-N/`.

    Args:
        folder: of a run that has ended.
        rewards: functions.
        attempt: the number of the attempt that used the old ones.

    Returns:
        The names of those that are others now.

    Raises:
        ConfigError: the run has no reward function of a name, or the source of one cannot be handed over.
        TypeError: one is no function, or takes no answer.
        ValueError: two are called the same.
    """
    functions = {name: function for name, function in by_name(rewards).items() if function is not None}
    known = functions_of(folder)
    for name in functions:
        if name not in known:
            message = (
                f"The run has no reward function {name}. Expected one of {', '.join(known)}; for another one start "
                "a new run."
            )
            raise ConfigError((Problem("invalid", KEY, name, message),))
    changed = []
    for name, text in sources_of(functions).items():
        path, kept = folder.code / f"{name}.py", folder.code / f"attempt-{attempt}"
        if path.is_file() and read_text(path, root=folder.path) == text:
            continue
        if path.is_file():
            kept.mkdir(exist_ok=True)
            path.replace(kept / path.name)
        write_code(folder.code, {name: text})
        changed.append(name)
    return changed


def functions_of(folder: RunFolder) -> tuple[str, ...]:
    """The names of the reward functions of a run."""
    return tuple(split_names(read_config(folder.config).get(KEY) or ""))


def cell_of(folder: RunFolder) -> str:
    """A cell that defines a run's reward functions, for those who run it again; empty where all are built in.

    A module whose names mean something else in another one stands in a function of its own.
    """
    paths = sorted(folder.code.glob("*.py"))
    if not paths:
        return ""
    texts = {path.stem: read_text(path, root=folder.path).removeprefix(HEAD).strip("\n") for path in paths}
    for name, text in texts.items():
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
    """The names that a module binds, each with what binds it."""
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
    """The names that a module reads anywhere."""
    return {one.id for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def _scope(called: str, name: str, text: str) -> str:
    """A function that returns what a module calls by a name."""
    found = ast.parse(f"def {called}():\n    return {name}")
    (function,) = found.body
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 - for the type checker
    function.body = [*ast.parse(text).body, *function.body]
    return ast.unparse(found)


def _unknown(name: str) -> Problem:
    known = [*BUILT_IN, *functions()]
    return Problem(
        "invalid",
        KEY,
        name,
        f"There is no reward function {name!r}. Expected one of {', '.join(known)}, or a function written in a cell "
        "under @llf.reward, or given as llf.train(config, rewards=[f]); in a terminal: llf train --rewards FILE.",
        tuple(Fix(f"Use {one}", {KEY: one}) for one in BUILT_IN),
    )
