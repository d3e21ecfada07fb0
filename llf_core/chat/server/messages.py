"""Messages and tools of a request to `/v1/chat/completions`.

`tool_choice`: which tools a request offers, and how a call is forced.

A forced call is a reply that follows a JSON schema: of the function's parameters, or of any of the functions with its
name. `ForcedCall` turns the text of such a reply into a tool call.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import PictureError, picture_bytes
from llf_core.chat.request import Finished, Piece, ToolCallPiece
from llf_core.chat.server.request_body import ApiError, Fields, invalid
from llf_core.untrusted.plain_json import json_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.chat.request import Event

MAX_MESSAGES = 10_000
MAX_PARTS = 1_000
MAX_TOOLS = 128
MAX_TOOL_CALLS = 128
ROLES = ("system", "developer", "user", "assistant", "tool")
FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_PART_KINDS = ("text", "image_url")


def messages_of(fields: Fields) -> list[dict[str, Any]]:
    """Take the messages with the fields that chat templates read, each checked; `developer` becomes `system`."""
    given = fields.list("messages", MAX_MESSAGES, "a list of messages")
    given = fields.required("messages", given, "a list of at least one message")
    path = fields.path("messages")
    return [_message(Fields(one, f"{path}[{number}]")) for number, one in enumerate(given)]


def has_pictures(messages: Sequence[dict[str, Any]]) -> bool:
    """Whether a message has a picture."""
    return any(
        part["type"] == "image_url"
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def tools_of(fields: Fields) -> list[dict[str, Any]]:
    """Take the tools; `ApiError` if one is invalid, or two have one name."""
    given = fields.list("tools", MAX_TOOLS, "a list of tools") or []
    tools = [_tool(Fields(one, f"tools[{number}]")) for number, one in enumerate(given)]
    names = [tool["function"]["name"] for tool in tools]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise invalid(f"tools[{number}].function.name", name, "a name that no other tool has")
    return tools


def _message(fields: Fields) -> dict[str, Any]:
    role = fields.required("role", fields.choice("role", ROLES), " or ".join(ROLES))
    message: dict[str, Any] = {"role": "system" if role == "developer" else role}
    content = fields.raw("content")
    if content is not None:
        message["content"] = _content(content, fields.path("content"), role)
    name = fields.text("name")
    if name is not None:
        message["name"] = name
    if role == "assistant":
        _take_reply(fields, message)
    elif content is None:
        fields.required("content", None, "text or a list of parts")
    if role == "tool":
        message["tool_call_id"] = fields.text("tool_call_id") or ""
    fields.finish({"audio": "The models read text and pictures.", "function_call": "Send tool_calls instead."})
    return message


def _take_reply(fields: Fields, message: dict[str, Any]) -> None:
    """Take the fields of an assistant's message."""
    for name in ("annotations", "refusal"):  # what OpenAI's client sends back of a reply
        if value := fields.raw(name):
            raise invalid(fields.path(name), value, "null or an empty list; write it into content")
    reasoning = fields.text("reasoning_content")
    if reasoning:
        message["reasoning_content"] = reasoning
    calls = fields.list("tool_calls", MAX_TOOL_CALLS, "a list of tool calls")
    if calls:
        path = fields.path("tool_calls")
        message["tool_calls"] = [_tool_call(Fields(one, f"{path}[{number}]")) for number, one in enumerate(calls)]
    if "content" not in message:
        if not calls and not reasoning:
            fields.required("content", None, "text, a list of parts, or tool_calls")
        message["content"] = ""


def _content(content: object, path: str, role: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise invalid(path, content, "text or a list of parts")
    if len(content) > MAX_PARTS:
        raise ApiError(400, f"{path} has {len(content):,} parts. Expected at most {MAX_PARTS:,}.", param=path)
    return [_part(Fields(one, f"{path}[{number}]"), role) for number, one in enumerate(content)]


def _part(fields: Fields, role: str) -> dict[str, Any]:
    kind = fields.required("type", fields.choice("type", _PART_KINDS), "text or image_url")
    if kind == "text":
        text = fields.text("text")
        if text is None:
            fields.required("text", None, "text")
        fields.finish()
        return {"type": "text", "text": text}
    if role not in {"user", "tool"}:
        raise invalid(fields.path("type"), kind, f"text in a message of the role {role}")
    inner = Fields(
        fields.required("image_url", fields.object("image_url"), "an object with url"), fields.path("image_url")
    )
    url = inner.required("url", inner.text("url"), "a data: URL")
    inner.choice("detail", ("auto", "low", "high"))
    inner.finish()
    fields.finish()
    _check_picture(url, inner.path("url"))
    return {"type": "image_url", "image_url": {"url": url}}


def _check_picture(url: str, path: str) -> None:
    try:
        picture_bytes(url, path)
    except PictureError as error:
        raise ApiError(400, str(error), param=path, code="invalid_value") from None


def _tool(fields: Fields) -> dict[str, Any]:
    fields.required("type", fields.choice("type", ("function",)), "function")
    given = fields.required("function", fields.object("function"), "an object with name and parameters")
    inner = Fields(given, fields.path("function"))
    name = _function_name(inner)
    function: dict[str, Any] = {"name": name}
    description = inner.text("description")
    if description is not None:
        function["description"] = description
    function["parameters"] = inner.object("parameters") or {"type": "object", "properties": {}}
    if inner.flag("strict"):
        function["strict"] = True
    inner.finish()
    fields.finish()
    return {"type": "function", "function": function}


def _tool_call(fields: Fields) -> dict[str, Any]:
    ident = fields.text("id") or ""
    fields.choice("type", ("function",))
    fields.raw("index")  # a part of a stream that the client has put together
    given = fields.required("function", fields.object("function"), "an object with name and arguments")
    inner = Fields(given, fields.path("function"))
    name = _function_name(inner)
    arguments = inner.text("arguments", "a JSON object as text") or "{}"
    try:
        value = json_value(arguments)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:  # also `NotPlainError`, and NaN, which JSON does not have
        value, text = None, ""
    if not isinstance(value, dict):
        raise invalid(inner.path("arguments"), arguments, "a JSON object as text")
    inner.finish()
    fields.finish()
    return {
        "id": ident,
        "type": "function",
        "function": {"name": name, "arguments": text},
    }


def _function_name(fields: Fields) -> str:
    expected = "a name of 1 to 64 letters, digits, dots, dashes and underscores"
    name: str = fields.required("name", fields.text("name", expected), expected)
    if not FUNCTION_NAME.fullmatch(name):
        raise invalid(fields.path("name"), name, expected)
    return name


@dataclass(frozen=True)
class ToolChoice:
    """What a request asks about tools.

    Attributes:
        schema: JSON schema of the reply; None if no call is forced.
        function: name of the forced function; None if the model chooses.
        named: whether the request names the function, instead of offering only one.
    """

    tools: tuple[dict[str, Any], ...] = ()
    schema: dict[str, Any] | None = None
    function: str | None = None
    named: bool = False

    @property
    def is_forced(self) -> bool:
        """Whether the reply must be a tool call."""
        return self.schema is not None


def tool_choice_of(fields: Fields, tools: Sequence[dict[str, Any]]) -> ToolChoice:
    """Take `tool_choice`, and remove `strict` from the offered functions, since chat templates do not know it.

    Raises:
        ApiError: it is invalid, or names an unknown tool; or a tool is strict and its call is not forced.
    """
    choice = _choice(fields, tools)
    for number, tool in enumerate(choice.tools):
        strict = tool["function"].pop("strict", False)
        if strict and not choice.is_forced:
            expected = "false: the arguments follow the schema for certain only if tool_choice forces the call"
            raise invalid(f"tools[{number}].function.strict", strict, expected)
    return choice


def _choice(fields: Fields, tools: Sequence[dict[str, Any]]) -> ToolChoice:
    given = fields.raw("tool_choice")
    names = [tool["function"]["name"] for tool in tools]
    if given is None or given == "auto":
        return ToolChoice(tuple(tools))
    if given == "none":
        return ToolChoice()
    if not tools and (given == "required" or isinstance(given, dict)):
        raise invalid("tool_choice", given, "tools beside it")
    if given == "required":
        if len(tools) == 1:
            return ToolChoice(tuple(tools), tools[0]["function"]["parameters"], names[0])
        return ToolChoice(tuple(tools), {"anyOf": [_with_name(tool["function"]) for tool in tools]})
    expected = 'none, auto, required, or {"type": "function", "function": {"name": …}} with the name of a tool'
    if not isinstance(given, dict):
        raise invalid("tool_choice", given, expected)
    outer = Fields(given, "tool_choice")
    outer.required("type", outer.choice("type", ("function",)), "function")
    inner = Fields(outer.required("function", outer.object("function"), expected), "tool_choice.function")
    name = inner.required("name", inner.choice("name", names), "the name of a tool in tools")
    inner.finish()
    outer.finish()
    tool = tools[names.index(name)]
    return ToolChoice(tuple(tools), tool["function"]["parameters"], name, named=True)


def _with_name(function: dict[str, Any]) -> dict[str, Any]:
    """Schema of a call of a function: its name and arguments."""
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": function["parameters"]},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


class ForcedCall:
    """Turns the text of one reply to a forced call into a tool call."""

    def __init__(self, choice: ToolChoice) -> None:
        self._function = choice.function
        self._started = False
        self._text = ""

    def events(self, event: Event) -> list[Event]:
        """Events in place of an event of the reply.

        Without a chosen function the call comes as a whole before `Finished`, since name and arguments are one text; as
        content, if the reply was cut off within it. After `Failed` its text is left out.
        """
        if isinstance(event, Piece) and event.kind == "content":
            found: list[Event] = [Piece("", "content", event.tokens)] if event.tokens else []
            if self._function is None:
                self._text += event.text
            elif event.text or not self._started:
                found.append(self._part(event.text, self._function))
            return found
        if isinstance(event, Finished) and self._function is None and self._text:
            return [self._whole(), event]
        return [event]

    def _part(self, arguments: str, name: str) -> ToolCallPiece:
        first, self._started = not self._started, True
        return ToolCallPiece(0, arguments, _new_call_id() if first else "", name if first else "")

    def _whole(self) -> Event:
        """The call as a whole; its text if the reply ended within it."""
        try:
            call = json_value(self._text)
            return self._part(json.dumps(call["arguments"], ensure_ascii=False), str(call["name"]))
        except (ValueError, KeyError, TypeError):
            return Piece(self._text)


def _new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
