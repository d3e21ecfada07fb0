"""Rows with one question and one answer: Alpaca's columns, or others mapped onto them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.formats import ALPACA, OPENAI
from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import (
    ANSWER,
    Conversation,
    Message,
    cell_of,
    checked,
    json_of,
    label_of,
    text_of,
    tools_of,
    turns_or_text,
)
from llf_core.data.formats.dataset_format import DatasetFormat

if TYPE_CHECKING:
    from collections.abc import Mapping


class Alpaca(DatasetFormat):
    """Columns for prompt and response, as in the Alpaca data set."""

    @staticmethod
    def align(row: Mapping[str, object], columns: Mapping[str, str], tags: Mapping[str, str]) -> Conversation:  # noqa: ARG004 - it has none
        """Convert a row to a conversation, as LLaMA-Factory reads this format.

        The question is `prompt`, and `query` on a line below it; `history` has earlier pairs of question and answer.
        The answer is `response`, or the two answers `chosen` and `rejected`, of which a list of messages counts as its
        last one; with `kto_tag`, whether `response` is good. Without any of them the conversation is a prompt.
        """
        cell = {key: cell_of(row, columns, key) for key in columns}
        messages: list[Message] = []
        if cell.get("system"):
            messages.append({"role": "system", "content": text_of(cell["system"], "the system prompt")})
        history = json_of(cell.get("history") or [], "history") or []
        for pair in history if isinstance(history, list | tuple) else [None]:
            if not isinstance(pair, list | tuple) or len(pair) != 2:  # noqa: PLR2004 - question and answer
                raise BadExample("history is not a list of [prompt, response] pairs")
            messages.append({"role": "user", "content": text_of(pair[0], "a prompt of the history")})
            messages.append({"role": "assistant", "content": text_of(pair[1], "a response of the history")})
        asked = (cell.get(key) for key in ("prompt", "query"))
        parts = [text_of(one, "the prompt") for one in asked if one or (one == 0 and not isinstance(one, bool))]
        if not any(part.strip() for part in parts):
            raise BadExample("the prompt is empty")
        messages.append({"role": "user", "content": "\n".join(parts)})
        tools = tools_of(cell.get("tools"))
        if "chosen" in columns:
            chosen, rejected = (
                {"role": ANSWER, "content": _last(cell[key], f"the {key} answer")} for key in ALPACA.ranked
            )
            return checked([*messages, chosen], tools, rejected=rejected)
        if "response" not in columns:
            return checked(messages, tools, prompt=True)
        messages.append({"role": ANSWER, "content": text_of(cell.get("response"), "the response")})
        return checked(messages, tools, good=label_of(cell["kto_tag"]) if "kto_tag" in columns else None)


def _last(value: object, what: str) -> str:
    """Text of an answer; of a message or a list of messages, or their JSON text, the last one's."""
    turns = turns_or_text(value, OPENAI.tags)
    last = turns[-1] if isinstance(turns, list) and turns else turns
    return text_of(last["content"] if isinstance(last, dict) and "content" in last else value, what)
