"""The one form that every data set is brought into."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llf_core.data.errors import BadExample

Message = dict[str, Any]
ANSWER = "assistant"


@dataclass(frozen=True)
class Conversation:
    """What an example says.

    Attributes:
        messages: `{"role", "content"}` each, roles `system` (first only), `user`, `assistant`, `tool`; an
            assistant's may carry `tool_calls`. The last one is an assistant's.
        tools: JSON schemas of the functions that may be called, or None.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None

    def canonical(self) -> bytes:
        """Bytes that are the same for the same conversation, whatever file it came from.

        Raises:
            BadExample: its text is no Unicode (half of a surrogate pair), so no tokenizer can read it.
        """
        value = {"messages": self.messages, "tools": self.tools}
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise BadExample(f"its text is not valid Unicode ({text[error.start : error.end]!r})") from None


def checked(messages: list[Message], tools: tuple[dict[str, Any], ...] | None = None) -> Conversation:
    """A conversation, once its turns alternate and it ends with an answer.

    Raises:
        BadExample: with the turn that is out of place.
    """
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not turns:
        raise BadExample("it has no turn")
    before: Message | None = None
    for number, message in enumerate(turns, start=1):
        role = message["role"]
        if role not in _allowed_after(before):
            expected = " or ".join(_allowed_after(before))
            raise BadExample(f"turn {number} is the {role}'s, expected the {expected}'s")
        before = message
    if turns[-1]["role"] != ANSWER:
        raise BadExample(f"it ends with the {turns[-1]['role']}'s turn, expected the assistant's")
    for message in turns:
        if message["role"] == ANSWER and not message["content"].strip() and not _says_more(message):
            raise BadExample("an answer is empty")
    return Conversation(tuple(messages), tools)


def _says_more(message: Message) -> bool:
    return bool(message.get("tool_calls") or message.get("reasoning_content"))


def _allowed_after(before: Message | None) -> tuple[str, ...]:
    if before is None:
        return ("user",)
    if before["role"] == "user":
        return (ANSWER,)
    if before["role"] == "tool":
        return (ANSWER, "tool")
    return ("tool", "user") if before.get("tool_calls") else ("user",)


def text_of(value: Any, what: str) -> str:
    """A cell or a message's content as text.

    Raises:
        BadExample: it is neither text, a number, nor a list of text parts.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(part, what) for part in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise BadExample(f"{what} is {'missing' if value is None else f'a {type(value).__name__}, expected text'}")


def _part(part: Any, what: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise BadExample(f"{what} has a part of type {kind}, which is not built yet; expected text")


def json_of(value: Any, what: str) -> Any:
    """A value that may be written as JSON text (a CSV cell, a call's arguments).

    Raises:
        BadExample: text that is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise BadExample(f"{what} is not JSON ({error.msg} at column {error.colno})") from None


def tools_of(value: Any) -> tuple[dict[str, Any], ...] | None:
    """The functions that an example offers, as a list or its JSON text; a bare schema is put in its envelope.

    Raises:
        BadExample: it is no list of objects.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    tools = json_of(value, "tools")
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadExample("tools is no list of objects")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools) or None
