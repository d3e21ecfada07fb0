"""A message of a conversation, and its fields as JSON in the conversation's file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

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
