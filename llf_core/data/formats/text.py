"""Plain text for pre-training: one text per record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import Conversation, cell_of, text_of
from llf_core.data.formats.dataset_format import DatasetFormat

if TYPE_CHECKING:
    from collections.abc import Mapping


class Text(DatasetFormat):
    """Plain text."""

    @staticmethod
    def align(row: Mapping[str, object], columns: Mapping[str, str], tags: Mapping[str, str]) -> Conversation:  # noqa: ARG004 - it has none
        """Convert the text in the column `prompt` to one message of role `text`, which no chat template renders."""
        text = text_of(cell_of(row, columns, "prompt"), "the text")
        if not text.strip():
            raise BadExample("the text is empty")
        return Conversation(({"role": "text", "content": text},))
