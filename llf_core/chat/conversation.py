"""A conversation as a file: a tree of messages in `$LLF_HOME/chats/<id>.jsonl`, to which lines are only appended.

Regenerating a reply or editing a question adds a sibling, so nothing is lost. Several views may have one conversation
open: each appends its messages, and reads those of the others with `refresh`.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from llf_core.chat.message_tree import (
    CHANGEABLE,
    FIELDS,
    ChatMessage,
    ConversationError,
    MessageTree,
    Role,
    as_record,
    has_valid_fields,
    message_of,
)
from llf_core.redaction import redact_nested
from llf_core.redaction.file_modes import make_folder
from llf_core.runs.folder import home_folder
from llf_core.runs.jsonl import MAX_LINE_BYTES, Tail, append, as_number, encode, parse
from llf_core.untrusted import HISTORY_BYTES, leads_to_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CHATS = "chats"
RANDOM_DIGITS = 8
"""Number of random hexadecimal digits after the time in an id."""
CONVERSATION_ID = re.compile(rf"[0-9]{{8}}-[0-9]{{6}}-[0-9a-f]{{{RANDOM_DIGITS}}}")
TITLE_LENGTH = 60
"""Maximum length of a title that is made of the first question."""


class Conversation(MessageTree):
    """A conversation in a file, opened with `new_conversation` or `open_conversation`.

    Lines that are not messages, and messages whose parent is missing, are skipped: others may have written the file.

    Attributes:
        file: the file; it exists from the first message, choice, title or setting on.
        id: name of the file without the ending.
        messages: all messages by id, in the order in which they were added.
        settings: `system` (the system prompt), `targets`, `sampling`, `tools`, and others.
        created: Unix seconds; 0 before the file exists.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem)
        self.file = path
        self._existed = False
        self._tail = Tail(path, most=HISTORY_BYTES)
        self.refresh()

    def _clear(self) -> None:
        super()._clear()
        self._unsaved: dict[str, dict[str, object]] = {}
        self.settings: dict[str, Any] = {}
        self.created = 0.0
        self._title = ""

    @property
    def title(self) -> str:
        """The given title, else the beginning of the first question."""
        if self._title:
            return self._title
        first = next((one.text() for one in self.messages.values() if one.role == "user" and one.text().strip()), "")
        line = " ".join(first.split())
        return line if len(line) <= TITLE_LENGTH else f"{line[: TITLE_LENGTH - 2].rstrip()} …"

    def refresh(self) -> list[str]:
        """Read what was appended since the last call, by any process; ids of the new and changed messages."""
        changed: dict[str, None] = {}
        for data, again in self._tail.pieces():
            self._existed = True
            if again:
                self._clear()
            for line in data.splitlines():
                record = parse(line)
                if record is not None and (touched := self._read(record)) is not None:
                    changed[touched] = None
        return [name for name in changed if name in self.messages]

    def _read(self, record: dict[str, Any]) -> str | None:
        """Apply a record of the file; the id of the message that is new or changed."""
        kind = record.get("type")
        if kind == "message":
            return self._read_message(record)
        if kind == "change":
            return self._read_change(record)
        if kind == "choose":
            self._read_choice(record)
        elif kind == "title" and isinstance(record.get("title"), str):
            self._title = record["title"]
        elif kind == "settings" and isinstance(record.get("settings"), dict):
            self.settings = self.settings | record["settings"]
        elif kind == "conversation" and (created := as_number(record.get("created"))) is not None:
            self.created = created
        return None

    def _read_message(self, record: dict[str, object]) -> str | None:
        values = {name: record[name] for name in FIELDS if name in record}
        if not values.get("id") or not {"parent", "role"} <= values.keys() or not has_valid_fields(values):
            return None
        message = message_of(values)
        return message.id if self._insert(message) else None

    def _read_change(self, record: dict[str, object]) -> str | None:
        name, values = record.get("id"), {key: record[key] for key in CHANGEABLE if key in record}
        if not isinstance(name, str) or name not in self.messages or not has_valid_fields(values):
            return None
        self.messages[name] = message_of(as_record(self.messages[name]) | values)
        return name

    def _read_choice(self, record: dict[str, object]) -> None:
        name, target = record.get("message"), record.get("target", "")
        if not isinstance(target, str):
            return
        if isinstance(name, str) and name in self.messages:
            self._choose(self.messages[name], target, last=record.get("last") is True)
        elif name is None and "message" in record:
            self._choose(None, target)

    def add(
        self, role: Role, content: str | list[dict[str, Any]] = "", *, parent: str | None = None, **values: Any
    ) -> ChatMessage:
        """Append a message. The path of its target (of all models, without one) ends with it until another is chosen.

        Args:
            parent: id of the message before it; None for a first message.
            values: further fields of `ChatMessage` except `id` and `created`. A regenerated reply has the parent of the
                first one; so has an edited question, with `edited_from`.
        """
        self.refresh()
        if parent is not None:
            self._message(parent)
        message = ChatMessage(secrets.token_hex(8), parent, role, content, created=time.time(), **values)
        record = as_record(message)
        self._check(record)
        self._append({"type": "message"} | record)
        return self._own(message.id)

    def ask(self, content: str | list[dict[str, Any]], targets: Iterable[str]) -> dict[str, ChatMessage]:
        """Append a question to models: one message, or one for each model once their histories differ."""
        names = list(dict.fromkeys(targets))
        self.refresh()
        ends = {name: self.end(name) for name in names}
        if len(set(ends.values())) <= 1:
            message = self.add("user", content, parent=next(iter(ends.values()), None))
            return dict.fromkeys(names, message)
        turn = secrets.token_hex(8)
        return {name: self.add("user", content, parent=ends[name], target=name, turn=turn) for name in names}

    def change(self, message: str, **values: object) -> ChatMessage:
        """Change fields of a message: those of `CHANGEABLE`. An edited question is a new message, see `add`.

        Raises:
            ConversationError: a value or the message is invalid or too large, or the file was replaced or deleted.
        """
        self.refresh()
        self._message(message)
        if unknown := sorted(values.keys() - CHANGEABLE):
            raise ConversationError(
                f"{unknown[0]} of a message cannot change. Expected {', '.join(sorted(CHANGEABLE))}."
            )
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        self._check(values)
        self._append({"type": "change", "id": message} | values)
        return self._own(message)

    def change_unsaved(self, message: str, **values: object) -> None:
        """Change fields of a message in memory, where `change` has failed because the disk is full.

        The change is written before the next record.
        """
        record = redact_nested({"type": "change", "id": message} | values, named=False)
        if self._read_change(record) is not None:
            self._unsaved[message] = record

    def choose(self, message: str | None, target: str = "", *, last: bool = False) -> None:
        """Choose the path through a message, to show another branch, or to give a model the history of another one.

        Args:
            message: id of the message; None for the beginning, before the first message.
            last: whether the path ends with the message, so that the next question follows it.
        """
        self.refresh()
        if message is not None:
            self._message(message)
        self._append({"type": "choose", "message": message, "target": target, "last": last})

    def rename(self, title: str) -> None:
        """Set the title, with single spaces; empty for the beginning of the first question."""
        self._append({"type": "title", "title": " ".join(title.split())})

    def set(self, **settings: object) -> None:
        """Set settings; the others keep their values."""
        self._append({"type": "settings", "settings": settings})

    def request_messages(self, path: Iterable[ChatMessage]) -> tuple[dict[str, Any], ...]:
        """Messages of a path in OpenAI's format, with the system prompt before them."""
        system = self.settings.get("system")
        head = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
        return (*head, *(one.openai() for one in path))

    def _own(self, name: str) -> ChatMessage:
        if name not in self.messages:
            raise self._gone()
        return self.messages[name]

    def _gone(self) -> ConversationError:
        return ConversationError(
            f"The file of the conversation {self.id} was replaced or deleted while it was open.",
            "Begin a new conversation.",
        )

    def _check(self, values: dict[str, object]) -> None:
        for name, value in values.items():
            if not has_valid_fields({name: value}):
                raise ConversationError(f"{name} of a message is {str(value)[:TITLE_LENGTH]!r}, which it cannot be.")
        if (length := len(encode(values))) > MAX_LINE_BYTES // 2:
            raise ConversationError(
                f"The message has {length:,} bytes. Expected at most {MAX_LINE_BYTES // 2:,}.",
                "Send smaller or fewer pictures.",
            )

    def _append(self, record: dict[str, object]) -> None:
        if not leads_to_file(self.file):
            if self._existed:  # a file in its place would keep the deleted one from being restored
                raise self._gone()
            make_folder(self.file.parent)
            append(self.file, {"type": "conversation", "v": 1, "created": time.time()}, named=False)
        for message, unsaved in list(self._unsaved.items()):
            append(self.file, unsaved, named=False)
            del self._unsaved[message]
        append(self.file, record, named=False)
        self.refresh()


def new_conversation(home: Path | str | None = None) -> Conversation:
    """Begin a conversation. Its file is made with the first message or setting."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(RANDOM_DIGITS // 2)}"
    return Conversation(home_folder(home) / CHATS / f"{name}.jsonl")


def conversation_path(conversation_id: str, home: Path | str | None = None) -> Path:
    """Path of a conversation's file.

    Raises:
        ConversationError: it is not an id, for example because it is a path.
    """
    if not CONVERSATION_ID.fullmatch(conversation_id):
        raise ConversationError(
            f"{conversation_id!r} is not the id of a conversation. Expected a name such as 20261127-142530-0a1b2c3d."
        )
    return home_folder(home) / CHATS / f"{conversation_id}.jsonl"


def open_conversation(conversation_id: str, home: Path | str | None = None) -> Conversation:
    """Open the conversation of a file.

    Raises:
        ConversationError: there is none with this id.
    """
    path = conversation_path(conversation_id, home)
    if not leads_to_file(path):
        raise ConversationError(
            f"There is no conversation {conversation_id}.", "List conversations with list_conversations()."
        )
    return Conversation(path)
