"""The formats of a data set's records: Alpaca's columns, OpenAI's messages, ShareGPT's turns, and plain text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from llf_core.config.declarations.formats import ALPACA, OPENAI, SHAREGPT
from llf_core.data.conversation import (
    ANSWER,
    REASONING_FIELDS,
    Conversation,
    Message,
    brief_value,
    cell_of,
    checked,
    json_of,
    label_of,
    role_of,
    text_of,
    tools_of,
    turns_or_text,
    with_ending,
)
from llf_core.data.errors import BadExample

if TYPE_CHECKING:
    from collections.abc import Mapping


class DatasetFormat(ABC):
    """Reads the records of a data set; declared by a `llf_core.config.declaration.FormatDeclaration`."""

    @staticmethod
    @abstractmethod
    def align(row: Mapping[str, object], columns: Mapping[str, str], tags: Mapping[str, str]) -> Conversation:
        """Convert a record to a conversation, the common representation that all later steps take.

        Args:
            columns: for each role in the words of `dataset_info.json` (`prompt`, `messages`, `chosen`, …), its column.
                A role that the data set lacks or the stage does not read, such as `response` of prompts, is missing.
            tags: for each tag of `dataset_info.json` (`role_tag`, …), the data set's own value; a tag that it does not
                name is missing.

        Returns:
            The conversation, see `llf_core.data.conversation.checked`.
        """


class Alpaca(DatasetFormat):
    """Columns for prompt and response, as in the Alpaca data set."""

    @staticmethod
    def align(row: Mapping[str, object], columns: Mapping[str, str], tags: Mapping[str, str]) -> Conversation:  # noqa: ARG004 - it has none
        """Convert a row to a conversation, as LLaMA-Factory reads this format.

        The question is `prompt`, and `query` on a line below it; `history` has earlier pairs of question and answer.
        The answer is `response`, or the two answers `chosen` and `rejected`, of which a list of messages counts as its
        last one; with `kto_tag`, whether `response` is good. Without any of them the conversation is a prompt.
        """
        cell = {key: cell_of(row, columns, key) for key in columns}
        messages: list[Message] = []
        if cell.get("system"):
            messages.append({"role": "system", "content": text_of(cell["system"], "the system prompt")})
        history = json_of(cell.get("history") or [], "history") or []
        for pair in history if isinstance(history, list | tuple) else [None]:
            if not isinstance(pair, list | tuple) or len(pair) != 2:  # noqa: PLR2004 - question and answer
                raise BadExample("history is not a list of [prompt, response] pairs")
            messages.append({"role": "user", "content": text_of(pair[0], "a prompt of the history")})
            messages.append({"role": "assistant", "content": text_of(pair[1], "a response of the history")})
        asked = (cell.get(key) for key in ("prompt", "query"))
        parts = [text_of(one, "the prompt") for one in asked if one or (one == 0 and not isinstance(one, bool))]
        if not any(part.strip() for part in parts):
            raise BadExample("the prompt is empty")
        messages.append({"role": "user", "content": "\n".join(parts)})
        tools = tools_of(cell.get("tools"))
        if "chosen" in columns:
            chosen, rejected = (
                {"role": ANSWER, "content": _last(cell[key], f"the {key} answer")} for key in ALPACA.ranked
            )
            return checked([*messages, chosen], tools, rejected=rejected)
        if "response" not in columns:
            return checked(messages, tools, prompt=True)
        messages.append({"role": ANSWER, "content": text_of(cell.get("response"), "the response")})
        return checked(messages, tools, good=label_of(cell["kto_tag"]) if "kto_tag" in columns else None)


def _last(value: object, what: str) -> str:
    """Text of an answer; of a message or a list of messages, or their JSON text, the last one's."""
    turns = turns_or_text(value, OPENAI.tags)
    last = turns[-1] if isinstance(turns, list) and turns else turns
    return text_of(last["content"] if isinstance(last, dict) and "content" in last else value, what)


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
        messages = [_openai_message(turn, tags, number) for number, turn in enumerate(turns, start=1)]
        if any(message["role"] == "system" for message in messages[1:]):
            raise BadExample("a system message is not first")
        system = cell_of(row, columns, "system")
        if system and not (messages and messages[0]["role"] == "system"):
            messages.insert(0, {"role": "system", "content": text_of(system, "the system prompt")})
        return with_ending(messages, row, columns, lambda turn: _openai_message(turn, tags, len(messages) + 1), tags)


def _openai_message(turn: Mapping[str, object], tags: Mapping[str, str], number: int) -> Message:
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
            message = _sharegpt_message(turn, tags, number)
            if message["role"] == "system":
                if number > 1:
                    raise BadExample(f"turn {number} is the system's, expected it first")
                messages = [message]
            else:
                messages.append(message)
        return with_ending(messages, row, columns, lambda turn: _sharegpt_message(turn, tags, len(messages) + 1), tags)


def _sharegpt_message(turn: Mapping[str, object], tags: Mapping[str, str], number: int) -> Message:
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


class Text(DatasetFormat):
    """Plain text."""

    @staticmethod
    def align(row: Mapping[str, object], columns: Mapping[str, str], tags: Mapping[str, str]) -> Conversation:  # noqa: ARG004 - it has none
        """Convert the text in the column `prompt` to one message of role `text`, which no chat template renders."""
        text = text_of(cell_of(row, columns, "prompt"), "the text")
        if not text.strip():
            raise BadExample("the text is empty")
        return Conversation(({"role": "text", "content": text},))
