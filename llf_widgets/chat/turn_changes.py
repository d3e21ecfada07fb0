"""What the buttons beside a question and a reply change in a conversation: other words, versions, fewer old turns."""

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

    from llf_core.chat.chat_message import ChatMessage
    from llf_core.chat.conversation import Conversation
    from llf_widgets.chat.turns import Turn


def edit_question(
    conversation: Conversation, turn: Turn, text: str, kept: Sequence[object] | None
) -> dict[str, ChatMessage]:
    """Add a question in other words as a new version of it, which becomes part of each model's path.

    Args:
        kept: keys of the pictures that it keeps; None for all.
    """
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
    """Go to another version of a question, with the replies to it; the first and the last one have no further ones.

    Args:
        step: 1 for the next version, -1 for the one before.
    """
    for model, question in turn.questions.items():
        conversation.choose(sibling(conversation, question, step), model)


def choose_reply(conversation: Conversation, turn: Turn, model: str, step: int) -> None:
    """Go to another version of a reply, with what follows it; the first and the last one have no further ones.

    Args:
        step: 1 for the next version, -1 for the one before.
    """
    conversation.choose(sibling(conversation, turn.replies[model][0], step), model)


def shortened(conversation: Conversation, turn: Turn, model: str) -> int:
    """Number of the oldest turns to leave out, so that a prompt that was too long becomes shorter: half of the rest."""
    path = conversation.path_to(turn.questions[model].id)
    earlier = sum(one.role == "user" for one in sent_messages(path, 0)) - 1
    replies = turn.replies[model]
    told: Any = replies[0].usage.get("left_out") if replies else 0
    before = min(told, earlier) if is_count(told) else 0  # anybody may have written the file
    return before + math.ceil((earlier - before) / 2)
