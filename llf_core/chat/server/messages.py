"""Messages and tools of a request to `/v1/chat/completions`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import PictureError, picture_bytes
from llf_core.chat.server.api_error import ApiError, invalid
from llf_core.chat.server.request_body import Fields
from llf_core.untrusted.plain_json import json_value

if TYPE_CHECKING:
    from collections.abc import Sequence

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
