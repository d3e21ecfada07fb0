"""`tool_choice`: which tools a request offers, and how a call is forced.

A forced call is a reply that follows a JSON schema: of the function's parameters, or of any of the functions with its
name. `ForcedCall` turns the text of such a reply into a tool call.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.chat.events import Finished, Piece, ToolCallPiece
from llf_core.chat.server.api_error import invalid
from llf_core.chat.server.request_body import Fields
from llf_core.untrusted.plain_json import json_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.chat.events import Event


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
