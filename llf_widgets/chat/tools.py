"""Functions of a cell that a model may call."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_ROUNDS = 10
"""Number of rounds of calls after a question, after which the user is asked whether the model may go on."""
MAX_RESULT = 1 << 20
"""Maximum characters of a result, so that it fits into a message as JSON, with up to six bytes for each."""
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


class CellTools:
    """The functions of a cell, which answer the calls of models without the user.

    Attributes:
        schemas: each in OpenAI's form, see `tool_schema`.

    Raises:
        ValueError: one has a parameter that cannot be passed by name, or Python has no signature of it.
        TypeError: `tools` is not a list, or one cannot be called or has no name, as a `functools.partial`.
    """

    def __init__(self, functions: Iterable[Callable[..., Any]]) -> None:
        if not isinstance(functions, Iterable):
            raise TypeError(f"The tools are {str(functions)[:80]}. Expected a list of functions.")
        self.functions = {_name(one): one for one in functions}
        self.schemas = [tool_schema(one) for one in self.functions.values()]

    def can_answer(self, calls: Sequence[Mapping[str, Any]]) -> bool:
        """Whether there are calls, and the cell has all their functions; otherwise the user types the results."""
        return bool(calls) and self.functions.keys() >= {call["function"]["name"] for call in calls}

    def results(self, calls: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Make the calls of a reply in order; the results by id of the call, see `call_tool`."""
        made = {}
        for call in calls:
            function = call["function"]
            made[call["id"]] = call_tool(self.functions, function["name"], function["arguments"])
        return made


def tool_schema(function: Callable[..., object]) -> dict[str, Any]:
    """A function in OpenAI's form: its name, its docstring, and its parameters with the types of their annotations."""
    called = _name(function)
    try:
        hints = get_type_hints(function)
    except Exception:  # noqa: BLE001 - an annotation can be any expression
        hints = {}
    properties, required = {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise ValueError(f"The parameter {parameter} cannot be passed by name. Expected named parameters only.")
        kind = get_origin(hints.get(name)) or hints.get(name)
        known = _TYPES.get(kind) if isinstance(kind, type) else None  # an annotation can be any value
        properties[name] = {"type": known} if known else {}
        if parameter.default is parameter.empty:
            required.append(name)
    described = {
        "name": called,
        "description": inspect.getdoc(function) or "",
        "parameters": {"type": "object", "properties": properties, "required": required},
    }
    return {"type": "function", "function": described}


def _name(function: Callable[..., object]) -> str:
    name = getattr(function, "__name__", None)
    if not callable(function) or not isinstance(name, str):
        raise TypeError(f"A tool is {str(function)[:80]}. Expected a function: def f(city: str): …")
    return name


def call_tool(functions: Mapping[str, Callable[..., object]], name: str, arguments: str) -> str:
    """Call a function as a model asks, and return the result or error as text of at most `MAX_RESULT` characters."""
    try:
        given = json.loads(arguments or "{}")
        found = functions[name](**given)
        text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)
    except BaseException as error:  # noqa: BLE001 - whatever it was, also SystemExit, the model is told
        text = f"Error: {type(error).__name__}: {error}"
    if len(text) <= MAX_RESULT:
        return text
    end = f" … (cut, {len(text):,} characters)"
    return text[: MAX_RESULT - len(end)] + end
