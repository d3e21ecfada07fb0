"""A conversation as a file: a tree of messages in `$LLF_HOME/chats/<id>.jsonl`, to which lines are only appended.

Regenerating a reply or editing a question adds a sibling, so nothing is lost. Several views may have one conversation
open: each appends its messages, and reads those of the others with `refresh`.

Messages of a conversation, and their tree: regenerated replies and edited questions are siblings.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from llf_core.redaction import redact_nested
from llf_core.redaction.file_modes import make_folder
from llf_core.runs.folder import home_folder
from llf_core.runs.jsonl import MAX_LINE_BYTES, Tail, append, as_number, encode, parse
from llf_core.untrusted import HISTORY_BYTES, leads_to_file
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CHATS = "chats"

RANDOM_DIGITS = 8
"""Number of random hexadecimal digits after the time in an id."""
CONVERSATION_ID = re.compile(rf"[0-9]{{8}}-[0-9]{{6}}-[0-9a-f]{{{RANDOM_DIGITS}}}")

TITLE_LENGTH = 60
"""Maximum length of a title that is made of the first question."""
Role = Literal["user", "assistant", "tool"]
Rating = Literal["good", "bad", ""]


@dataclass(frozen=True)
class ChatMessage:
    """A message of a conversation.

    Attributes:
        parent: id of the message before it; None for a first message.
        role: `user`, `assistant` or `tool`. The system prompt is one of the conversation's settings.
        content: text, or OpenAI's content parts (`{"type": "text", …}`, `{"type": "image_url", …}`).
        reasoning: the model's reasoning before its answer.
        tool_calls: calls of functions in OpenAI's format, with `id` and with arguments as JSON text.
        target: name of the model that wrote the message, or for which alone the question is; empty for all.
        turn: the same text for all messages that are one question to several models; else empty.
        sampling: sampling parameters of a reply, see `llf_core.chat.request.ChatSampling`.
        usage: numbers of tokens and times of a reply, see `llf_core.chat.request.Finished`.
        finish_reason: why a reply ended; empty while it is being written, `failed` after an error.
        edited_from: id of the message of which it is an edited copy.
        rating: `good`, `bad`, or empty.
        kept: the rows that were made of it, by name of the data set; see `llf_core.chat.kept_examples`.
        corrected: the corrected text with which it was kept, by name of the data set.
        created: Unix seconds.
    """

    id: str
    parent: str | None
    role: Role
    content: str | list[dict[str, Any]] = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str = ""
    target: str = ""
    turn: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = ""
    edited_from: str = ""
    rating: Rating = ""
    kept: dict[str, str] = field(default_factory=dict)
    corrected: dict[str, str] = field(default_factory=dict)
    created: float = 0.0

    def text(self) -> str:
        """The text of the content, without pictures."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part_text(part) for part in self.content if part.get("type") == "text")

    def openai(self) -> dict[str, Any]:
        """The message in OpenAI's format."""
        message: dict[str, object] = {"role": self.role, "content": self.content}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        return message


class ConversationError(UserError, ValueError):
    """A conversation or a message in it does not exist, or cannot be written."""


class MessageTree:
    """Messages with their branches, and which of them were chosen last for each model."""

    def __init__(self, id: str) -> None:  # noqa: A002 - the attribute's name
        self.id = id
        self._clear()

    def _clear(self) -> None:
        self.messages: dict[str, ChatMessage] = {}
        self._children: dict[str | None, list[str]] = {}
        self._events = 0
        self._ends: dict[str, _Choice] = {}
        self._chosen: dict[str | None, dict[str, _Choice]] = {}

    def _insert(self, message: ChatMessage) -> bool:
        """Add a message, and choose the path through it; false if its id is taken or its parent is missing."""
        parent = message.parent
        if message.id in self.messages or (parent is not None and parent not in self.messages):
            return False
        self.messages[message.id] = message
        self._children.setdefault(parent, []).append(message.id)
        self._choose(message, message.target)
        return True

    def _choose(self, message: ChatMessage | None, target: str, *, last: bool = False) -> None:
        """Choose the path of a target (empty: of all) through a message; with None, it ends before the first one."""
        self._events += 1
        if message is None:
            self._ends[target] = _Choice(self._events, None, last=True)
            return
        self._ends[target] = choice = _Choice(self._events, message.id, last)
        self._chosen.setdefault(message.parent, {})[target] = choice

    def _message(self, name: str) -> ChatMessage:
        """The message with an id, or `ConversationError`."""
        if name not in self.messages:
            raise ConversationError(f"The conversation {self.id} has no message {name!r}.")
        return self.messages[name]

    def siblings(self, message: str) -> tuple[str, ...]:
        """Ids of the messages with the same parent, role and target, itself among them, oldest first."""
        one = self._message(message)
        others = (self.messages[name] for name in self._children[one.parent])
        return tuple(other.id for other in others if (other.role, other.target) == (one.role, one.target))

    def path(self, target: str = "") -> tuple[ChatMessage, ...]:
        """The messages that a view shows and a request sends.

        From the first one through the one that was added or chosen last to the end of its branch, or only to that one
        if `choose` was called with `last`. Empty if there is no message, or the beginning was chosen.

        Args:
            target: name of a model: what was added or chosen for it or for all models counts; empty for any model.
        """
        chosen = _latest(self._ends, target)
        if chosen is None or chosen.message is None:
            return ()
        found = list(self._up_to(self.messages[chosen.message]))
        while not chosen.last and (following := self._following(found[-1].id, target)) is not None:
            found.append(self.messages[following])
        return tuple(found)

    def path_to(self, message: str) -> tuple[ChatMessage, ...]:
        """The messages from the first one to a message, with it."""
        return self._up_to(self._message(message))

    def _up_to(self, message: ChatMessage) -> tuple[ChatMessage, ...]:
        found = [message]
        while (parent := found[-1].parent) is not None:
            found.append(self.messages[parent])
        return tuple(reversed(found))

    def end(self, target: str = "") -> str | None:
        """Id of the last message of `path`, the parent of the next question."""
        path = self.path(target)
        return path[-1].id if path else None

    def _following(self, parent: str, target: str) -> str | None:
        """The child of a message that was last added or chosen for a target."""
        fitting = {
            lane: choice
            for lane, choice in self._chosen.get(parent, {}).items()
            if choice.message is not None and (not target or self.messages[choice.message].target in {"", target})
        }
        choice = _latest(fitting, target)
        return None if choice is None else choice.message


class _Choice(NamedTuple):
    """A message that was added or chosen; None for the beginning of the conversation."""

    number: int
    message: str | None
    last: bool = False


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


CHANGEABLE = frozenset({"content", "reasoning", "tool_calls", "usage", "finish_reason", "rating", "kept", "corrected"})
"""Fields of a message that may change after it was added: a reply grows, and is rated or kept."""

FIELDS: dict[str, type | tuple[type, ...]] = {
    "id": str, "parent": (str, type(None)), "role": str, "content": (str, list), "reasoning": str, "tool_calls": list,
    "tool_call_id": str, "target": str, "turn": str, "sampling": dict, "usage": dict, "finish_reason": str,
    "edited_from": str, "rating": str, "kept": dict, "corrected": dict, "created": (int, float),
}  # fmt: skip
"""Types of the fields in a file."""


def part_text(part: Mapping[str, object]) -> str:
    """The text of a content part; empty if it has none, or something else in its place."""
    text = part.get("text")
    return text if isinstance(text, str) else ""


def message_of(values: dict[str, Any]) -> ChatMessage:
    """The message of fields that `has_valid_fields` has accepted."""
    return ChatMessage(**{**values, "tool_calls": tuple(values.get("tool_calls", ()))})


def as_record(message: ChatMessage) -> dict[str, Any]:
    """Fields of a message as JSON: `parent`, `content`, and the others that are not empty."""
    record = asdict(message)
    record["tool_calls"] = list(record["tool_calls"])
    return {key: value for key, value in record.items() if value or key in {"parent", "content"}}


def has_valid_fields(values: dict[str, Any]) -> bool:
    """Whether fields of a message have the right types; others may have written them."""
    if any(not isinstance(value, FIELDS[name]) or isinstance(value, bool) for name, value in values.items()):
        return False
    lists = [values.get("tool_calls", [])] + ([values["content"]] if isinstance(values.get("content"), list) else [])
    return (
        values.get("role", "user") in get_args(Role)
        and values.get("rating", "") in get_args(Rating)
        and all(isinstance(one, dict) for each in lists for one in each)
        and all(isinstance(one.get("function"), dict) for one in values.get("tool_calls", []))
        and all(isinstance(one, str) for name in ("kept", "corrected") for one in values.get(name, {}).values())
    )


def _latest(choices: Mapping[str, _Choice], target: str) -> _Choice | None:
    """The message that was chosen last for a target or for all; for any target if it is empty."""
    found = [choice for lane, choice in choices.items() if not target or lane in {"", target}]
    return max(found, default=None)
