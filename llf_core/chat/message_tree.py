"""Messages of a conversation, and their tree: regenerated replies and edited questions are siblings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

Role = Literal["user", "assistant", "tool"]
Rating = Literal["good", "bad", ""]
CHANGEABLE = frozenset({"content", "reasoning", "tool_calls", "usage", "finish_reason", "rating", "kept", "corrected"})
"""Fields of a message that may change after it was added: a reply grows, and is rated or kept."""


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
        usage: numbers of tokens and times of a reply, see `llf_core.chat.events.Finished`.
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


def _latest(choices: Mapping[str, _Choice], target: str) -> _Choice | None:
    """The message that was chosen last for a target or for all; for any target if it is empty."""
    found = [choice for lane, choice in choices.items() if not target or lane in {"", target}]
    return max(found, default=None)
