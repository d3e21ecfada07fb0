"""Writes a notebook cell with the functions of a run."""

from __future__ import annotations

import ast
from keyword import iskeyword
from typing import TYPE_CHECKING

from llf_core.config.option import split_names
from llf_core.runs.config_file import read_config
from llf_core.untrusted import read_text
from llf_core.user_functions.function_source import HEAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.runs import RunFolder

OURS = "import llf_widgets as llf"


def definition_cell(folder: RunFolder) -> str:
    """Source of a notebook cell that defines the functions that a run stores; empty if it stores none.

    A module whose names conflict with another one is wrapped in a function.

    Raises:
        ValueError: a stored module cannot be parsed, or its name is not an identifier.
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
    values = read_config(folder.config)
    metrics = {one.rpartition(":")[2] for one in _named(values.get("metrics"))}
    rewards = _named(values.get("reward_functions"))

    def decorators(name: str) -> list[str]:
        own = ["metric"] if name in metrics else []
        return [*own, "reward"] if name in rewards or not own else own

    parts = [HEAD, OURS]
    known = _bound(OURS)
    for name, text in texts.items():
        own = bound[name]
        agree = all(known.get(one, meaning) == meaning for one, meaning in own.items())
        if agree and not any(own.keys() & names for other, names in given.items() if other != name):
            known |= own
            parts.append(f"{text}\n\n\n{_registered(name, decorators(name), name)}")
        else:
            alone = f"_{name}_alone"
            parts.append(f"{_scope(alone, name, text)}\n\n\n{_registered(name, decorators(name), f'{alone}()')}")
    return "\n\n".join(parts) + "\n\n"


def _named(value: object) -> set[str]:
    """Names in a value of a config that was not validated."""
    names = split_names(value)
    return {one for one in names if isinstance(one, str)} if isinstance(names, tuple) else set()


def _registered(name: str, decorators: Sequence[str], function: str) -> str:
    for decorator in decorators:
        function = f'llf.{decorator}(name="{name}")({function})'
    return function


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
    return {one.id for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def _scope(called: str, name: str, text: str) -> str:
    """A function that returns the object `name` of a module."""
    found = ast.parse(f"def {called}():\n    return {name}")
    (function,) = found.body
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 - for the type checker
    function.body = [*ast.parse(text).body, *function.body]
    return ast.unparse(found)
