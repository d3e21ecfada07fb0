"""Parts of a reply: pieces of text and of tool calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Alternative:
    """A token that could stand in the place of a token.

    Attributes:
        text: its text; may be empty or hold U+FFFD, if it is a part of a character.
        logprob: natural logarithm of its probability before temperature and other sampling parameters.
    """

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Token:
    """A token of a reply with its log-probability.

    Attributes:
        top: the most likely tokens in this place, highest first.
    """

    id: int
    text: str
    logprob: float
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Piece:
    """New text of a reply; the concatenated pieces of a kind are the whole text of that kind.

    Attributes:
        kind: `content`, or `reasoning` before the answer.
        tokens: its tokens, if the request asks for log-probabilities. They may come with an empty text while a
            character or a tool call is incomplete.
    """

    text: str
    kind: Literal["content", "reasoning"] = "content"
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class ToolCallPiece:
    """A part of a tool call.

    Attributes:
        index: number of the call in the reply, from 0.
        arguments: new text of the arguments, which are a JSON object.
        id: id of the call; empty after the first part.
        name: name of the function; empty after the first part.
    """

    index: int
    arguments: str
    id: str = ""
    name: str = ""
