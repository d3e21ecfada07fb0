"""Reads special tokens in the data as plain text (`split_special_tokens`).

A record with `<|im_end|>` in its text would otherwise end a turn. The special tokens of the chat template stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.data.errors import BadExample, DataError
from llf_core.data.fast_tokenizer import FastTokenizer, Pieces
from llf_core.data.word_cache import fast_tokenizer_of_backend

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from llf_core.data.fast_tokenizer import Spans
    from llf_core.data.formats.conversation import Conversation, Message

SPLIT = "\ue004"
"""Marker (private use) inside a special token that is read as text. It leaves no token."""


@dataclass
class SplittingTokenizer(FastTokenizer):
    """A fast tokenizer that splits special tokens of the data at `SPLIT`, a token that is dropped.

    Attributes:
        places: for each special token of the model, the position of `SPLIT` in it: after its first token as text.
    """

    places: dict[str, int]

    @cached_property
    def _inner(self) -> FastTokenizer:
        return fast_tokenizer_of_backend(self.backend)

    @cached_property
    def _mark(self) -> int:
        mark = self.backend.token_to_id(SPLIT)
        assert mark is not None  # noqa: S101 - `splitting_tokenizer` has added it
        return mark

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.places, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def marked(self, conversation: Conversation) -> Conversation:
        """Put `SPLIT` into the special tokens in all texts of a conversation, before it is rendered."""
        rejected, tools = conversation.rejected, conversation.tools
        return replace(
            conversation,
            tools=None if tools is None else tuple(map(self._value, tools)),
            messages=tuple(self._message(one) for one in conversation.messages),
            rejected=None if rejected is None else self._message(rejected),
        )

    def _message(self, message: Message) -> Message:
        return {key: value if key == "role" else self._value(value) for key, value in message.items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            if SPLIT in value:
                raise BadExample("its text has the private-use character U+E004")
            return self._pattern.sub(self._split, value)
        if isinstance(value, dict):
            return {self._value(key): self._value(one) for key, one in value.items()}
        return type(value)(map(self._value, value)) if isinstance(value, list | tuple) else value

    def _split(self, match: re.Match[str]) -> str:
        place = self.places[match[0]]
        return match[0][:place] + SPLIT + match[0][place:]

    def pieces(self, texts: Sequence[str], cuts: Sequence[Sequence[int]]) -> Pieces:
        """See `FastTokenizer.pieces`; markers give no token."""
        found = self._inner.pieces(texts, cuts)
        ids, before = self._without_marks(found.ids)
        return Pieces(ids, [before[place] for place in found.bounds])

    def locate(self, texts: Sequence[str], parts: Sequence[Spans]) -> list[tuple[array[int], Spans]]:
        """See `FastTokenizer.locate`; the characters of `parts` include markers."""
        located = []
        for marked, spans in self._inner.locate(texts, parts):
            ids, before = self._without_marks(marked)
            located.append((ids, tuple((before[start], before[end]) for start, end in spans)))
        return located

    def _without_marks(self, ids: array[int]) -> tuple[array[int], list[int]]:
        """Token ids without those of markers, and for each old position the number of tokens left before it."""
        kept = np.frombuffer(ids, np.int32) != self._mark if len(ids) else np.zeros(0, dtype=bool)
        left = type(ids)("i", np.frombuffer(ids, np.int32)[kept].tobytes()) if len(ids) else ids
        return left, list(accumulate(kept.tolist(), initial=0))


def splitting_tokenizer(tokenizer: PreTrainedTokenizerBase) -> SplittingTokenizer:
    """Copy the fast implementation of a tokenizer, as one that drops the markers in special tokens."""
    if not tokenizer.is_fast:
        raise DataError(
            "split_special_tokens needs a fast tokenizer, and the model has a slow one. Set split_special_tokens: "
            "false, or use a model with tokenizer.json."
        )
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(tokenizer.backend_tokenizer.to_str())
    special = {one.content for one in backend.get_added_tokens_decoder().values() if one.special}
    places = {token: _first_end(backend, token) for token in special if len(token) > 1}
    backend.encode_special_tokens = False
    backend.add_special_tokens([AddedToken(SPLIT, normalized=False)])
    return SplittingTokenizer(backend, places)


def _first_end(backend: Tokenizer, token: str) -> int:
    """End of the first token of a special token that is read as text."""
    backend.encode_special_tokens = True
    ends = [end for _, end in backend.encode(token, add_special_tokens=False).offsets]
    return next((end for end in ends if 0 < end < len(token)), 1)
