"""Rows with a list of messages as in OpenAI's API. Nothing is added to them that the record does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.declarations.formats import OPENAI
from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import (
    Conversation,
    Message,
    brief_value,
    cell_of,
    json_of,
    role_of,
    text_of,
    with_ending,
)
from llf_core.data.formats.dataset_format import DatasetFormat

if TYPE_CHECKING:
    from collections.abc import Mapping


class OpenAI(DatasetFormat):
    """A list of messages, as in OpenAI's API."""

    @staticmethod
    def align(row: Mapping[str, object], columns: Mapping[str, str], tags: Mapping[str, str]) -> Conversation:
        """Convert messages to a conversation, with their `tool_calls`, `tool_call_id`, `name` and `reasoning_content`.

        Arguments of calls are parsed from JSON text. The role `developer` counts as `system`. A column `system` is the
        system prompt of messages that begin without one.
        """
        tags = {**OPENAI.tags, **tags}
        turns = json_of(row.get(columns["messages"]), columns["messages"])
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise BadExample(f"{columns['messages']} is not a list of messages")
        messages = [_message(turn, tags, number) for number, turn in enumerate(turns, start=1)]
        if any(message["role"] == "system" for message in messages[1:]):
            raise BadExample("a system message is not first")
        system = cell_of(row, columns, "system")
        if system and not (messages and messages[0]["role"] == "system"):
            messages.insert(0, {"role": "system", "content": text_of(system, "the system prompt")})
        return with_ending(messages, row, columns, lambda turn: _message(turn, tags, len(messages) + 1), tags)


def _message(turn: Mapping[str, object], tags: Mapping[str, str], number: int) -> Message:
    roles = {
        tags["user_tag"]: "user",
        tags["assistant_tag"]: "assistant",
        tags["observation_tag"]: "tool",
        tags["system_tag"]: "system",
        "developer": "system",
    }
    role = role_of(turn.get(tags["role_tag"]), roles, f"message {number} has {tags['role_tag']}")
    message = {key: value for key, value in turn.items() if value is not None}
    for tag in ("role_tag", "content_tag"):
        message.pop(tags[tag], None)
    calls = json_of(message.pop("tool_calls", None) or [], "tool_calls")
    content = turn.get(tags["content_tag"])
    says_nothing = content is None and (calls or message.get("reasoning_content"))
    message["role"] = role
    message["content"] = "" if says_nothing else text_of(content, f"the content of message {number}")
    if calls:
        if not isinstance(calls, list):
            raise BadExample(f"the tool_calls of message {number} are {brief_value(calls)}, expected a list")
        message["tool_calls"] = [_call(call, number) for call in calls]
    return message


def _call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadExample(f"a tool call of message {number} has no function name")
    arguments = json_of(function.get("arguments") or {}, "a call's arguments") or {}
    return {**call, "function": {**function, "arguments": arguments}}
