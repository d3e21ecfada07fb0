"""List of the conversations of `LLF_HOME`, and the bin for deleted ones: `$LLF_HOME/bin/.chats`."""

from __future__ import annotations

import os
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
    conversation_path,
)
from llf_core.chat.message_tree import ConversationError
from llf_core.redaction.file_modes import make_folder
from llf_core.runs.folder import home_folder
from llf_core.runs.jsonl import Tail, parse
from llf_core.runs.moving import move
from llf_core.runs.plain_text import strip_bidi
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from collections.abc import Iterator

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
