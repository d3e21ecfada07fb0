"""Plain text, a record a text: what a model is pre-trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import Conversation, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULTS = {"prompt": "text"}
REQUIRED = ("prompt",)


def align(row: Mapping[str, Any], columns: Mapping[str, str], _tags: Mapping[str, str]) -> Conversation:
    """The text as one message of role `text`.

    Args:
        row: one record.
        columns: `prompt` names the column.

    Raises:
        BadExample: there is none.
    """
    text = text_of(row.get(columns["prompt"]), "the text")
    if not text.strip():
        raise BadExample("the text is empty")
    return Conversation(({"role": "text", "content": text},))
