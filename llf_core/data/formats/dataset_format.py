"""The base class of the formats of a data set's records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.data.formats.conversation import Conversation


class DatasetFormat(ABC):
    """Reads the records of a data set; declared by a `llf_core.config.declaration.FormatDeclaration`."""

    @staticmethod
    @abstractmethod
    def align(row: Mapping[str, object], columns: Mapping[str, str], tags: Mapping[str, str]) -> Conversation:
        """Convert a record to a conversation, the common representation that all later steps take.

        Args:
            columns: for each role in the words of `dataset_info.json` (`prompt`, `messages`, `chosen`, …), its column.
                A role that the data set lacks or the stage does not read, such as `response` of prompts, is missing.
            tags: for each tag of `dataset_info.json` (`role_tag`, …), the data set's own value; a tag that it does not
                name is missing.

        Returns:
            The conversation, see `llf_core.data.formats.conversation.checked`.
        """
