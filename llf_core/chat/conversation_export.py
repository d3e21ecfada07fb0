"""Conversations as Markdown, as OpenAI's messages, and as rows of a data set."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llf_core.chat.message_tree import part_text
from llf_core.chat.picture import is_picture, part_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llf_core.chat.conversation import Conversation

HEADINGS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
FENCE = re.compile("`{3,}")
_FENCED_OR_HEADING = re.compile(
    r"^ {0,3}(`{3,}(?=[^`\n]*$)|~{3,}).*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)|^#{1,6}\s", re.MULTILINE | re.DOTALL
)
"""A code block, from its fence to one that is at least as long, or a heading outside of them, as CommonMark has it."""


def as_markdown(conversation: Conversation, target: str = "") -> str:
    """The path of a model (empty: of all) as Markdown, with reasoning and calls in code blocks."""
    lines = [f"# {conversation.title or conversation.id}", ""]
    system = conversation.settings.get("system")
    if isinstance(system, str) and system.strip():
        lines += ["## System", "", _body(system), ""]
    for message in conversation.path(target):
        named = f" ({message.target})" if message.role == "assistant" and message.target else ""
        lines += [f"## {HEADINGS[message.role]}{named}", ""]
        if message.reasoning:
            lines += [_block(message.reasoning, "thinking"), ""]
        if message.role == "tool":
            lines += [_block(message.text()), ""]
        elif message.content:
            lines += [_body(_with_pictures(message.content)), ""]
        for call in message.tool_calls:
            function = call["function"]
            lines += [
                f"Calls `{function.get('name', '')}`:",
                "",
                _block(str(function.get("arguments", "")), "json"),
                "",
            ]
    return "\n".join(lines)


def as_openai(conversation: Conversation, target: str = "") -> dict[str, Any]:
    """The path of a model (empty: of all) as `messages`, and `tools` if there are any, for OpenAI's API."""
    messages = list(conversation.request_messages(conversation.path(target)))
    tools = _tools(conversation)
    return {"messages": messages, **({"tools": tools} if tools else {})}


def as_row(messages: Iterable[Mapping[str, object]], tools: Sequence[Mapping[str, object]] = ()) -> dict[str, Any]:
    """Messages, a system prompt first if there is one, as a row of a data set in the format `openai`.

    All rows have columns of the same types, so that Arrow reads any mixture of them: contents are text, arguments of
    calls and tools are JSON text, and pictures are in the column `images`, with `<image>` in their places.
    """
    images: list[str] = []
    rows = [_row_message(message, images) for message in messages]
    row: dict[str, object] = {"messages": rows}
    if tools:
        row["tools"] = json.dumps(list(tools), ensure_ascii=False)
    if images:
        row["images"] = images
    return row


def as_rows(conversation: Conversation, target: str = "") -> list[dict[str, Any]]:
    """The path of a model (empty: of all) up to its last reply as one row, see `as_row`; empty without a reply."""
    path = list(conversation.path(target))
    while path and (path[-1].role != "assistant" or not (path[-1].text().strip() or path[-1].tool_calls)):
        path.pop()
    return [as_row(conversation.request_messages(path), _tools(conversation))] if path else []


def as_jsonl(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _tools(conversation: Conversation) -> list[dict[str, object]]:
    tools = conversation.settings.get("tools")
    return [one for one in tools if isinstance(one, dict)] if isinstance(tools, list) else []


def _row_message(message: Mapping[str, Any], images: list[str]) -> dict[str, Any]:
    row = {key: value for key, value in message.items() if key != "content"}
    content = message.get("content")
    if isinstance(content, list):
        parts = []
        for part in content:
            if is_picture(part):
                if url := part_url(part):
                    images.append(url)
                    parts.append("<image>")
            else:
                parts.append(part_text(part))
        content = "".join(parts)
    row["content"] = content or ""
    if calls := row.get("tool_calls"):
        row["tool_calls"] = [_call(call) for call in calls]
    return row


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _with_pictures(content: str | list[dict[str, object]]) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join("*(picture)*" if is_picture(part) else part_text(part) for part in content)


def _body(text: str) -> str:
    """Text of a message with its headings two levels deeper, so that they do not look like headings of messages."""
    return _FENCED_OR_HEADING.sub(lambda found: found[0] if found[1] else f"##{found[0]}", text.strip())


def _block(text: str, language: str = "") -> str:
    fence = "`" * max(3, 1 + max((len(found) for found in FENCE.findall(text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
