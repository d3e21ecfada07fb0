"""Rows with a list of turns, each with a role and a text: ShareGPT's tags, or others mapped onto them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.formats import SHAREGPT
from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import (
    REASONING_FIELDS,
    Conversation,
    Message,
    cell_of,
    json_of,
    role_of,
    text_of,
    with_ending,
)
from llf_core.data.formats.dataset_format import DatasetFormat

if TYPE_CHECKING:
    from collections.abc import Mapping


class ShareGPT(DatasetFormat):
    """A list of turns, as in the ShareGPT data set."""

    @staticmethod
    def align(row: Mapping[str, object], columns: Mapping[str, str], tags: Mapping[str, str]) -> Conversation:
        """Convert turns to a conversation, with the messages of OpenAI's format.

        A function call becomes `tool_calls` of the assistant, an observation a `tool` message. A turn keeps its
        reasoning under any of its usual names. A column `system` is the system prompt of turns that begin without one.
        """
        tags = {**SHAREGPT.tags, **tags}
        turns = json_of(row.get(columns["messages"]), columns["messages"])
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise BadExample(f"{columns['messages']} is not a list of turns")
        messages: list[Message] = []
        system = cell_of(row, columns, "system")
        if system:
            messages.append({"role": "system", "content": text_of(system, "the system prompt")})
        for number, turn in enumerate(turns, start=1):
            message = _message(turn, tags, number)
            if message["role"] == "system":
                if number > 1:
                    raise BadExample(f"turn {number} is the system's, expected it first")
                messages = [message]
            else:
                messages.append(message)
        return with_ending(messages, row, columns, lambda turn: _message(turn, tags, len(messages) + 1), tags)


def _message(turn: Mapping[str, object], tags: Mapping[str, str], number: int) -> Message:
    role = turn.get(tags["role_tag"])
    content = turn.get(tags["content_tag"])
    if role == tags["function_tag"]:
        return {"role": "assistant", "content": "", "tool_calls": _calls(content, number)}
    names = {
        tags["user_tag"]: "user",
        tags["assistant_tag"]: "assistant",
        tags["observation_tag"]: "tool",
        tags["system_tag"]: "system",
    }
    role = role_of(role, names | {tags["function_tag"]: ""}, f"turn {number} has {tags['role_tag']}")
    message = {"role": role, "content": text_of(content, f"the {tags['content_tag']} of turn {number}")}
    return message | {key: turn[key] for key in REASONING_FIELDS if turn.get(key) and key not in tags.values()}


def _calls(content: object, number: int) -> list[dict[str, object]]:
    calls = json_of(content, f"the call in turn {number}")
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise BadExample(f"the call in turn {number} has no name")
    return [
        {
            "type": "function",
            "function": {
                "name": call["name"],
                "arguments": json_of(call.get("arguments") or {}, "a call's arguments") or {},
            },
        }
        for call in calls
    ]
