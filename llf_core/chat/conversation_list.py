"""The conversations of `LLF_HOME`, the bin for deleted ones, and their export as Markdown, messages or a data set."""

from __future__ import annotations

import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.chat.conversation import (
    CHATS,
    CONVERSATION_ID,
    RANDOM_DIGITS,
    Conversation,
    ConversationError,
    conversation_path,
    part_text,
)
from llf_core.chat.picture import is_picture, part_url
from llf_core.redaction.file_modes import make_folder
from llf_core.runs.archive import move
from llf_core.runs.folder import home_folder
from llf_core.runs.formatting import strip_bidi
from llf_core.runs.jsonl import Tail, parse
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


BIN = Path("bin", f".{CHATS}")
"""Folder of deleted conversations, which `llf runs clean` empties with the bin; its hidden name is not a run's."""

LIST_BYTES = 256 << 10
"""Maximum bytes that a list reads of each end of a file."""


class ConversationExcerpt(Conversation):
    """A conversation for a list: of a large file only the beginning and the end are read, see `complete`."""

    def refresh(self) -> list[str]:
        """Read the file, or both ends of a large one."""
        for line in self._tail.read(LIST_BYTES)[0].splitlines():
            self._read(parse(line) or {})
        self.complete = self.file.stat().st_size <= 2 * LIST_BYTES
        for data, _ in (self._tail if self.complete else Tail(self.file, LIST_BYTES)).pieces():
            for line in data.splitlines():
                record = parse(line) or {}
                if not self.complete and record.get("parent") not in self.messages:
                    record["parent"] = None  # it was not read
                self._read(record)
        return list(self.messages)


@dataclass(frozen=True)
class ConversationRow:
    """A conversation in a list.

    Attributes:
        messages: number of messages on all branches, as far as the file was read.
        complete: whether the whole file was read; above 512 KB only the beginning and the end are.
        created: Unix seconds; 0 if unknown.
        changed: Unix seconds of the last change of the file.
    """

    id: str
    title: str
    messages: int
    complete: bool
    targets: tuple[str, ...]
    created: float
    changed: float

    def json(self) -> dict[str, Any]:
        """The row as a JSON object."""
        return asdict(self)


def list_conversations(
    home: Path | str | None = None, offset: int = 0, limit: int = 50
) -> tuple[int, list[ConversationRow]]:
    """Total number of conversations, and a page of them, last changed first. Files that cannot be read are left out."""
    found = _files(home)
    rows = []
    for changed, path in found[offset : offset + limit]:
        with suppress(OSError):
            rows.append(_row(ConversationExcerpt(path), changed))
    return len(found), rows


def newest_conversations(home: Path | str | None = None, limit: int = 50) -> Iterator[ConversationExcerpt]:
    """Yield excerpts of conversations, last changed first. Files that cannot be read are left out."""
    for _, path in _files(home)[:limit]:
        with suppress(OSError):
            yield ConversationExcerpt(path)


def answering_models(conversation: Conversation) -> tuple[str, ...]:
    """Names of the models that have answered in a conversation, in the order of their first replies."""
    messages = conversation.messages.values()
    return tuple(dict.fromkeys(one.target for one in messages if one.role == "assistant" and one.target))


def _files(home: Path | str | None) -> list[tuple[float, Path]]:
    """Time of change and path of each conversation, last changed first."""
    found = []
    with suppress(FileNotFoundError), os.scandir(home_folder(home) / CHATS) as entries:
        for entry in entries:
            name, ending = os.path.splitext(entry.name)  # noqa: PTH122
            if ending == ".jsonl" and CONVERSATION_ID.fullmatch(name):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
    return sorted(found, reverse=True)


def _row(conversation: ConversationExcerpt, changed: float) -> ConversationRow:
    return ConversationRow(
        conversation.id,
        strip_bidi(conversation.title),
        len(conversation.messages),
        conversation.complete,
        answering_models(conversation),
        conversation.created,
        changed,
    )


def delete_conversation(conversation_id: str, home: Path | str | None = None) -> Path:
    """Move a conversation to the bin, from which it can be restored until `llf runs clean` empties it.

    If its id is taken there, it gets a new one. Its age in the bin is counted from now by the file's time of change.
    """
    path = conversation_path(conversation_id, home)
    target = home_folder(home) / BIN / path.name
    while os.path.lexists(target):
        target = target.with_name(f"{conversation_id[:-RANDOM_DIGITS]}{secrets.token_hex(RANDOM_DIGITS // 2)}.jsonl")
    return _move(path, target, "There is no conversation")


def restore_conversation(conversation_id: str, home: Path | str | None = None) -> Conversation:
    """Move a conversation from the bin back to the list, where it becomes the first.

    Raises:
        ConversationError: the bin has none with this id, or the list has one.
    """
    path = conversation_path(conversation_id, home)
    if leads_to_file(path):
        raise ConversationError(
            f"The list already has a conversation {conversation_id}.",
            f"Move it to the bin first, which keeps both: llf chats delete {conversation_id}",
        )
    return Conversation(_move(home_folder(home) / BIN / path.name, path, "The bin has no conversation"))


def _move(source: Path, target: Path, missing: str) -> Path:
    if not leads_to_file(source):
        raise ConversationError(f"{missing} {source.stem}.")
    make_folder(target.parent)
    os.utime(source, follow_symlinks=False)  # its age in the bin is counted from now
    move(source, target)
    return target


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
