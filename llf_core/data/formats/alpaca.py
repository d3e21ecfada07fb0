"""One question and one answer a row: Alpaca's columns, or others mapped onto them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import Conversation, Message, checked, json_of, text_of, tools_of

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULTS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "system": "system",
    "history": "history",
    "tools": "tools",
}
REQUIRED = ("prompt", "response")


def align(row: Mapping[str, Any], columns: Mapping[str, str], _tags: Mapping[str, str]) -> Conversation:
    """The question is `prompt`, and `query` on a line below it; `history` holds earlier pairs.

    Args:
        row: one record.
        columns: LLaMA-Factory's name to the row's own.

    Raises:
        BadExample: no question or no answer, or a history that is no list of pairs.
    """
    cell = {key: row.get(column) for key, column in columns.items()}
    messages: list[Message] = []
    if cell.get("system"):
        messages.append({"role": "system", "content": text_of(cell["system"], "the system prompt")})
    for pair in json_of(cell.get("history") or [], "history"):
        if not isinstance(pair, list | tuple) or len(pair) != 2:  # noqa: PLR2004 - question and answer
            raise BadExample("history is no list of [question, answer] pairs")
        messages.append({"role": "user", "content": text_of(pair[0], "a question of the history")})
        messages.append({"role": "assistant", "content": text_of(pair[1], "an answer of the history")})
    parts = [text_of(cell[key], "the question") for key in ("prompt", "query") if cell.get(key)]
    if not any(part.strip() for part in parts):
        raise BadExample("the question is empty")
    messages.append({"role": "user", "content": "\n".join(parts)})
    messages.append({"role": "assistant", "content": text_of(cell.get("response"), "the answer")})
    return checked(messages, tools_of(cell.get("tools")))
