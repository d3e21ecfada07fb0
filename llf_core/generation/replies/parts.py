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
    """A token of a reply; `top` are the most likely tokens in its place, highest first."""

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
    """A part of a tool call with some JSON text of its arguments; `id` and `name` are empty after the first part."""

    index: int
    arguments: str
    id: str = ""
    name: str = ""
