"""A conversation as the page shows it: questions in order, replies, pictures, and what was kept as training data.

Pictures are in none of the view's traits, which are sent as a whole: the page requests each once, by its key.
"""

from __future__ import annotations

import itertools
import math
import secrets
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llf_core.chat.conversation import ConversationError
from llf_core.chat.kept_examples import (
    DEFAULT,
    KINDS,
    Kind,
    keep_example,
    keep_pair,
    keep_rating,
    kept_datasets,
    kept_file,
    undo_kept,
)
from llf_core.chat.picture import (
    MAX_BYTES,
    PictureError,
    check_together,
    is_picture,
    part_url,
    picture_bytes,
    question_content,
)
from llf_core.config.number_format import with_unit
from llf_core.runs.formatting import size
from llf_core.runs.jsonl import is_count
from llf_widgets.chat.replies import reply_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from llf_core.chat.conversation import ChatMessage, Conversation
    from llf_core.chat.target import Target
    from llf_widgets.chat.replies import Writing


@dataclass
class Turn:
    """A question to one or several models.

    Attributes:
        id: the `turn` of all its questions, or the id of the only one.
        questions: the question to each model, by the model's name; at least one in what `turns_of` returns.
        replies: what follows it until the next question, by the model's name: replies, calls and their results.
    """

    id: str
    questions: dict[str, ChatMessage] = field(default_factory=dict)
    replies: dict[str, list[ChatMessage]] = field(default_factory=dict)

    @property
    def first(self) -> ChatMessage:
        """The question to the first model that has one, whose text is that of all."""
        return next(iter(self.questions.values()))

    def reply(self, model: str) -> ChatMessage | None:
        """The last reply of a model, after all its tool calls; None if it has not answered."""
        replies = [one for one in self.replies.get(model, ()) if one.role == "assistant"]
        return replies[-1] if replies else None

    def calls(self, model: str) -> list[dict[str, Any]]:
        """The tool calls of a model; `arguments` is JSON text, `result` None until there is one."""
        messages = self.replies.get(model, [])
        results = {one.tool_call_id: one.text() for one in messages if one.role == "tool"}
        return [
            {
                "id": str(call.get("id", "")),
                "name": str(call["function"].get("name", "")),
                "arguments": str(call["function"].get("arguments", "")),
                "result": results.get(str(call.get("id", ""))),
            }
            for message in messages
            for call in message.tool_calls
        ]


def turns_of(conversation: Conversation, models: Sequence[str]) -> list[Turn]:
    """The questions on the chosen paths of models, in the order in which they were asked."""
    turns: dict[str, Turn] = {}
    for model in models:
        turn: Turn | None = None
        for message in conversation.path(model):
            if message.role == "user":
                turn = turns.setdefault(message.turn or message.id, Turn(message.turn or message.id))
                turn.questions[model] = message
                turn.replies[model] = []
            elif turn is not None:
                turn.replies[model].append(message)
    return sorted(turns.values(), key=lambda turn: turn.first.created)


def turn_json(
    conversation: Conversation,
    turn: Turn,
    writing: Mapping[str, Writing],
    tokens: Mapping[str, list[Any]],
    paused: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """A question with its replies for the page.

    Args:
        tokens: tokens with their probabilities of replies, by id.
        paused: number of rounds of calls before replies whose calls wait until the user lets them go on, by id.
    """
    question = turn.first
    return {
        "id": turn.id,
        "text": question.text(),
        "pictures": picture_keys(question),
        "version": list(_version(conversation, question)),
        "replies": [
            reply_json(
                reply,
                writing.get(reply.id),
                _version(conversation, turn.replies[model][0]),
                tokens.get(reply.id, []),
                turn.calls(model),
                paused.get(reply.id, 0),
            )
            for model in turn.replies
            if (reply := turn.reply(model)) is not None
        ],
    }


def call_rounds(path: Sequence[ChatMessage]) -> int:
    """Number of replies that call tools since the last question of a path."""
    since = itertools.takewhile(lambda one: one.role != "user", reversed(path))
    return sum(bool(one.tool_calls) for one in since)


def sibling(conversation: Conversation, message: ChatMessage, step: int) -> str:
    """Id of the version `step` places after a message, limited to those that there are."""
    versions = conversation.siblings(message.id)
    return versions[min(max(versions.index(message.id) + step, 0), len(versions) - 1)]


def sent_messages(path: Sequence[ChatMessage], left_out: int = 0) -> list[ChatMessage]:
    """The messages of a path that a model is sent: without turns that have no answer, and without the oldest others.

    Chat templates expect an answer after each question. A turn has an answer if one of its replies has content or calls
    a tool; reasoning alone, of a reply that was cut off, is none.
    """
    turns: list[list[ChatMessage]] = []
    for message in path:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    *earlier, last = turns
    answered = [
        turn for turn in earlier if any(one.role == "assistant" and (one.content or one.tool_calls) for one in turn)
    ]
    return [message for turn in [*answered[left_out:], last] for message in turn]


def _version(conversation: Conversation, message: ChatMessage) -> tuple[int, int]:
    """Place of a message among its versions, from 1, and their number."""
    versions = conversation.siblings(message.id)
    return versions.index(message.id) + 1, len(versions)


def edit_question(
    conversation: Conversation, turn: Turn, text: str, kept: Sequence[object] | None
) -> dict[str, ChatMessage]:
    """Add an edited question as a new version; it keeps the pictures with the keys `kept`, or all."""
    new: dict[str, ChatMessage] = {}
    name = secrets.token_hex(8) if turn.first.turn else ""
    for model, question in turn.questions.items():
        same = [made for made in new.values() if made.edited_from == question.id]
        new[model] = (
            same[0]
            if same
            else conversation.add(
                "user",
                question_content(text, pictures_of(question, kept)),
                parent=question.parent,
                target=question.target,
                turn=name,
                edited_from=question.id,
            )
        )
    for model, question in new.items():
        conversation.choose(question.id, model)
    return new


def choose_question(conversation: Conversation, turn: Turn, step: int) -> None:
    """Go `step` versions of a question on or back, as far as there are any, with the replies to it."""
    for model, question in turn.questions.items():
        conversation.choose(sibling(conversation, question, step), model)


def choose_reply(conversation: Conversation, turn: Turn, model: str, step: int) -> None:
    """Go `step` versions of a reply on or back, as far as there are any, with what follows it."""
    conversation.choose(sibling(conversation, turn.replies[model][0], step), model)


def shortened(conversation: Conversation, turn: Turn, model: str) -> int:
    """Number of the oldest turns to leave out of a prompt that was too long: half of the rest."""
    path = conversation.path_to(turn.questions[model].id)
    earlier = sum(one.role == "user" for one in sent_messages(path, 0)) - 1
    replies = turn.replies[model]
    told: Any = replies[0].usage.get("left_out") if replies else 0
    before = min(told, earlier) if is_count(told) else 0  # anybody may have written the file
    return before + math.ceil((earlier - before) / 2)


UNITS: dict[Kind, str] = {"examples": "example", "pairs": "pair", "ratings": "rating"}


def keep(  # noqa: PLR0913 - both replies, and an edited text
    conversation: Conversation, turn: Turn, model: str, what: str, *, other: str = "", text: str = ""
) -> None:
    """Keep a reply as a row of a data set.

    Args:
        what: `example`; `pair` for a reply that is better than another one; `good` or `bad`.
        other: model with the worse reply of a pair; empty if `text` is an improved text of the reply itself.
        text: edited text of the reply; empty for its own.
    """
    reply = _reply(turn, model)
    if what == "example":
        keep_example(conversation, reply, text=text or None)
    elif what == "pair":
        keep_pair(conversation, reply, _reply(turn, other) if other else reply, chosen_text=text or None)
    elif what in {"good", "bad"}:
        keep_rating(conversation, reply, good=what == "good")
    else:
        raise ValueError(f"A reply cannot be kept as {what[:40]!r}. Expected example, pair, good or bad.")


def undo(conversation: Conversation, turn: Turn, model: str, kind: Kind) -> None:
    """Remove the rows of a reply from a data set; a reply without such rows is left alone."""
    undo_kept(conversation, _reply(turn, model), kept_file(conversation, DEFAULT, kind))


def kept_rows(home: Path | None, target: Target) -> list[dict[str, str]]:
    """The data sets that the buttons of chats fill, with their size as `text` and the `code` of a cell that uses it."""
    return [
        {
            "text": f"{with_unit(one.rows, UNITS[one.kind])} in {one.file.name}",
            "code": "llf.Studio("
            + repr({"model_name_or_path": target.model, "stage": KINDS[one.kind], "dataset": str(one.file)})
            + ")",
        }
        for one in kept_datasets(home)
        if one.name == DEFAULT
    ]


def _reply(turn: Turn, model: str) -> str:
    reply = turn.reply(model)
    if reply is None:
        raise ConversationError("This model has not answered the question.")
    return reply.id


MAX_WAITING_BYTES = 8 * MAX_BYTES
"""Maximum size of all pictures that wait to be sent, including those of closed pages."""


class AddedPictures:
    """Pictures that pages have added to a question and not sent yet, by the key that the page gave each."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}

    def add(self, key: str, name: str, url: object, beside: Collection[str]) -> None:
        """Check and store a picture that was added to a question.

        The oldest pictures are removed while all have more than `MAX_WAITING_BYTES`.

        Args:
            url: data URL of the picture; or its number of bytes, if it is too large to be sent.
            beside: keys of the other pictures of the question.

        Raises:
            PictureError: it is not a picture, or is too large, by itself or with the others.
        """
        if isinstance(url, int):
            raise PictureError(f"{name} has {' '.join(size(url))}. Expected at most {' '.join(size(MAX_BYTES))}.")
        length = len(picture_bytes(url, name))
        check_together(length, sum(self._found[one][1] for one in beside if one in self._found), name)
        self._found[key] = (str(url), length)
        while sum(length for _, length in self._found.values()) > MAX_WAITING_BYTES:
            del self._found[next(iter(self._found))]

    def urls(self, keys: Iterable[str]) -> list[str]:
        """The data URLs of pictures.

        Raises:
            PictureError: one of them was removed.
        """
        try:
            return [self._found[key][0] for key in keys]
        except KeyError:
            raise PictureError(
                "A picture of the question is gone.", "Remove the pictures, and add them again."
            ) from None

    def discard(self, keys: Iterable[str]) -> None:
        """Forget pictures that were sent or removed, to free their memory."""
        for key in keys:
            self._found.pop(key, None)


def picture_keys(message: ChatMessage) -> list[str]:
    """Keys of the pictures of a message, by which the page asks for them."""
    return [f"{message.id}-{place}" for place in range(len(pictures_of(message)))]


def pictures_of(message: ChatMessage, keys: Iterable[object] | None = None) -> list[dict[str, Any]]:
    """Content parts of a message that are pictures: all, or those at the places that `keys` end with."""
    parts = message.content if isinstance(message.content, list) else []
    found = [part for part in parts if is_picture(part)]
    if keys is None:
        return found
    places = {str(key).rpartition("-")[2] for key in keys}
    return [part for place, part in enumerate(found) if str(place) in places]


def shown_url(conversation: Conversation, key: str) -> str:
    """The data URL of a picture in a conversation, for its page."""
    message = conversation.messages.get(key.rpartition("-")[0])
    found = pictures_of(message, [key]) if message is not None else []
    try:
        return part_url(found[0]) if found and picture_bytes(part_url(found[0])) else ""
    except PictureError:
        return ""
