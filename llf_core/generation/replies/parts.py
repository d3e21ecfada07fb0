"""Parts of a reply: pieces of text and of tool calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Alternative:
    """A token that could stand in the place of a token.

    Attributes:
        id: token id.
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
        id: token id.
        top: the most likely tokens in this place, highest first.
    """

    id: int
    text: str
    logprob: float
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Piece:
    """New text of a reply.

    Attributes:
        text: the text; the concatenated pieces of a kind are the whole text of that kind.
        kind: `content`, or `reasoning` for what the model thinks before it answers.
        tokens: the tokens of the piece, if the request asks for log-probabilities. They may come with an empty text
            while a character or a tool call is incomplete.
    """

    text: str
    kind: Literal["content", "reasoning"] = "content"
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class ToolCallPiece:
    """A part of a tool call; the first part of a call has its id and name.

    Attributes:
        index: number of the call in the reply, from 0.
        arguments: new text of the arguments, which are a JSON object.
        id: id of the call; empty in later parts.
        name: name of the function; empty in later parts.
    """

    index: int
    arguments: str
    id: str = ""
    name: str = ""
