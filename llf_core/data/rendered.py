"""A conversation as text: what rendering gives and tokenizing takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.data.formats.conversation import Medium


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: all of it.
        answers: where the answers stand in it, `[start, end)` in characters: from the end of the generation prompt
            to the end of all that the template writes for the turn (the token that ends it, a newline after it).
        cuts: where the text is taken apart before it is tokenized, every border of an answer among them; None where
            it is tokenized as one, as `apply_chat_template` does.
        media: pictures, videos and sounds that it names, in order.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    cuts: tuple[int, ...] | None = None
    media: tuple[Medium, ...] = ()
