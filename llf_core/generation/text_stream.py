"""Streams tokens to text and detects stop strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"  # a decoder's placeholder for the first bytes of a character
WINDOW = 16
"""Number of tokens after which text is not decoded again; at most twice as many tokens are decoded at a time."""


class TextStream:
    """Converts the token ids of a completion to text as they arrive, and ends it at stop strings.

    Text that may still change is held back: an incomplete character, or the beginning of a stop string.

    Args:
        ends: end-of-sequence token ids, which are not part of the text.
        stops: stop strings; the completion ends before them.
        on_text: called with each new piece by `put` and `close`; the concatenated pieces are `text`.
        keep_special: whether special tokens are part of the text, for a parser of tool calls.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        ends: Collection[int],
        stops: Sequence[str] = (),
        on_text: Callable[[str], object] | None = None,
        *,
        keep_special: bool = False,
    ) -> None:
        self._tokenizer, self._ends, self._on_text = tokenizer, frozenset(ends), on_text
        self._skip_special = not keep_special
        self._stops = [stop for stop in stops if stop]
        self._watches = bool(self._stops) or on_text is not None
        self._ids: list[int] = []  # those that are still decoded: the first `_context` of them are part of `_fixed`
        self._context = 0
        self._fixed = self._head = ""  # the text before the others, and that of the first `_context` ids
        self._given = 0
        self.text = ""

    def put(self, token: int) -> bool:
        """Add a token id, and give `on_text` the text that is now certain; whether the completion ends with it.

        Without `on_text` and stop strings nothing is decoded before `close`.
        """
        if token in self._ends:
            self.close()
            return True
        self._ids.append(token)
        if not self._watches:
            return False
        text = self._decode()
        cut = self._stopped(text.rstrip(UNFINISHED))
        if cut is not None:
            self.text = text[:cut]
            self._give(cut)
            self._watches, self._ids = False, []
            return True
        self.text = text
        self._give(len(text) - self._held(text))
        return False

    def close(self) -> None:
        """Emit text that was held back, since no token follows."""
        if self._ids:
            self.text = self._decode()
            cut = self._stopped(self.text)
            self.text = self.text if cut is None else self.text[:cut]
        self._give(len(self.text))

    def _decode(self) -> str:
        """The whole text. Tokens leave the window once later ones cannot change their text."""
        tail = self._text_of(self._ids)[len(self._head) :]
        text = self._fixed + tail
        if self._watches and len(self._ids) - self._context >= WINDOW and not tail.endswith(UNFINISHED):
            self._ids = self._ids[self._context :]  # a decoder may treat the first token of a text differently
            self._context, self._fixed, self._head = len(self._ids), text, self._text_of(self._ids)
        return text

    def _text_of(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skip_special)
        return text

    def _stopped(self, text: str) -> int | None:
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(found, default=None)

    def _held(self, text: str) -> int:
        """Number of final characters that may change: an incomplete character, or the beginning of a stop string."""
        whole = text.rstrip(UNFINISHED)
        begun = [
            size
            for stop in self._stops
            for size in range(1, min(len(stop), len(whole) + 1))
            if whole.endswith(stop[:size])
        ]
        return len(text) - len(whole) + max(begun, default=0)

    def _give(self, end: int) -> None:
        if self._on_text is not None and end > self._given:
            self._on_text(self.text[self._given : end])
            self._given = end
