"""Replies that were kept as training data, as the page shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from llf_core.config.number_format import with_unit

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.chat.conversation import Conversation
    from llf_core.chat.target import Target
    from llf_widgets.chat.turns import Turn

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
