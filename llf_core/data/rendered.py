"""A rendered conversation: output of rendering, input of tokenization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.data.formats.conversation import Medium


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation.

    Attributes:
        answers: ranges `[start, end)` of the answers in characters: from the end of the generation prompt to the end of
            what the template writes for the turn (the end token and a newline after it).
        cuts: positions at which the text is split before tokenization, including every boundary of an answer; None if
            it is tokenized as a whole, as by `apply_chat_template`.
        media: images, videos and audio, in order of their placeholders.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    cuts: tuple[int, ...] | None = None
    media: tuple[Medium, ...] = ()
