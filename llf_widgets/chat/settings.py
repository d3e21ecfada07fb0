"""Settings of a chat, checked when a request is made of them, and functions of a cell that a model may call."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from llf_core.chat.conversation import new_conversation, open_conversation
from llf_core.chat.conversation_list import answering_models, newest_conversations
from llf_core.chat.request import ChatRequest, ChatSampling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from llf_core.chat.conversation import Conversation


DEFAULTS: dict[str, Any] = {
    "system": "",
    "temperature": "0",
    "top_p": "1",
    "max_tokens": "512",
    "seed": "",
    "probabilities": False,
    "thinking": "",
}

THINKING: Mapping[str, dict[str, bool]] = MappingProxyType(
    {"": {}, "on": {"enable_thinking": True}, "off": {"enable_thinking": False}}
)
"""Variables of the chat template for each value of the setting `thinking`; an empty text leaves it to the template."""

TOP_LOGPROBS = 5
"""Number of likely alternatives that are shown for a token."""
_NAMES = {"temperature": "Temperature", "top_p": "Top p", "max_tokens": "At most", "seed": "Seed"}

_EXPECTED = {
    "temperature": "a number from 0 to 100",
    "top_p": "a number above 0 and at most 1",
    "max_tokens": "an integer of at least 1, or nothing for as many tokens as fit",
    "seed": "an integer, or nothing for another seed each time",
}
_INTEGERS = frozenset({"max_tokens", "seed"})


def changed(settings: Mapping[str, object], changes: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
    """Apply changes of the page to settings; returns these, and a sentence for each field with an invalid value."""
    applied, problems = dict(settings), {}
    for name in changes.keys() & DEFAULTS.keys():
        value = changes[name]
        if isinstance(DEFAULTS[name], bool):
            applied[name] = bool(value)
        elif name == "system":
            applied[name] = str(value)
        elif name == "thinking":
            applied[name] = value if isinstance(value, str) and value in THINKING else ""
        elif problem := _problem(name, str(value).strip()):
            problems[name] = problem
        else:
            applied[name] = str(value).strip()
    return applied, problems


def sampling_of(settings: Mapping[str, Any]) -> ChatSampling:
    """The sampling parameters of valid settings."""
    return ChatSampling(
        temperature=float(settings["temperature"]),
        top_p=float(settings["top_p"]),
        seed=int(settings["seed"]) if settings["seed"] else None,
    )


def request_of(settings: Mapping[str, Any], messages: tuple[dict[str, Any], ...], **values: Any) -> ChatRequest:
    """The request for a reply with the settings of the page; `values` are further fields of `ChatRequest`."""
    return ChatRequest(
        messages=messages,
        sampling=sampling_of(settings),
        max_tokens=int(settings["max_tokens"]) if settings["max_tokens"] else None,
        logprobs=settings["probabilities"],
        top_logprobs=TOP_LOGPROBS if settings["probabilities"] else 0,
        template_options=THINKING[settings["thinking"]],
        **values,
    )


def _problem(name: str, text: str) -> str:
    if not text and name in _INTEGERS:
        return ""
    with suppress(ValueError):  # `RequestError` is one
        number = int(text) if name in _INTEGERS else float(text)
        if name == "max_tokens" and number >= 1:
            return ""
        if name != "max_tokens":
            ChatSampling(**{name: number})  # type: ignore[arg-type]
            return ""
    return f"{_NAMES[name]} is {text[:40]!r}. Expected {_EXPECTED[name]}."


SEARCHED = 50
"""Number of newest conversations that are searched for the one of a cell."""


def conversation_of(name: str | None, models: Sequence[str], home: Path | None) -> Conversation:
    """Open the conversation with an id; without one the last of these models in this notebook, or a new one."""
    if name is not None:
        return open_conversation(name, home)
    for found in newest_conversations(home, SEARCHED):
        if found.settings.get("notebook", "") == _notebook() and _has_models(found, models):
            return open_conversation(found.id, home)
    return new_conversation(home)


def _has_models(conversation: Conversation, models: Sequence[str]) -> bool:
    asked = conversation.settings.get("targets")
    names = asked if isinstance(asked, list) else answering_models(conversation)
    return len(names) == len(models) and all(name in names for name in models)


def saved_settings(conversation: Conversation) -> dict[str, Any]:
    """The settings of a conversation for the page; missing or invalid ones are the defaults."""
    saved = conversation.settings
    fields = saved.get("fields")
    given = {**(fields if isinstance(fields, dict) else {}), "system": saved.get("system") or ""}
    return changed(DEFAULTS, given)[0]


def save_settings(
    conversation: Conversation, settings: Mapping[str, object], models: Sequence[str], tools: Sequence[dict[str, Any]]
) -> None:
    """Keep the settings of a chat in its conversation if they have changed, and the tools if there are any."""
    wanted = {
        "system": settings["system"],
        "fields": {name: value for name, value in settings.items() if name != "system"},
        "targets": list(models),
        "notebook": _notebook(),
        "tools": list(tools) or conversation.settings.get("tools", []),
    }
    if any(conversation.settings.get(name, []) != value for name, value in wanted.items()):
        conversation.set(**wanted)


def _notebook() -> str:
    """Path of the notebook, as JupyterLab passes it to its kernels; empty elsewhere."""
    return os.environ.get("JPY_SESSION_NAME", "")


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
