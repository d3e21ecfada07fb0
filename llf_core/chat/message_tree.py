"""The messages of a conversation as a tree: regenerated replies and edited questions are siblings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.chat.chat_message import ChatMessage


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
