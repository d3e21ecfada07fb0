"""Changes of the buttons beside questions and replies: edits, versions, fewer old turns."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import question_content
from llf_core.runs.event_fields import is_count
from llf_widgets.chat.pictures import pictures_of
from llf_widgets.chat.turns import sent_messages, sibling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.chat.conversation import Conversation
    from llf_core.chat.message_tree import ChatMessage
    from llf_widgets.chat.turns import Turn


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
