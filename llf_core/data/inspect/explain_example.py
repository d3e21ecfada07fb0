"""Explains an example token by token: its text, role, and whether it is trained on, read or truncated."""

from __future__ import annotations

from bisect import bisect_right
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, TypedDict

from llf_core.config.ignore_index import IGNORED
from llf_core.data.answer_ranges import MARKERS
from llf_core.data.errors import BadExample

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.chat_template import ChatTemplate
    from llf_core.data.inspect.untruncated_example import UntruncatedExample
    from llf_core.data.rendered import Rendered

PROMPT, TRAINED, CUT = "prompt", "trained", "cut"


class ShownTurn(TypedDict):
    """A turn of an example.

    Attributes:
        role: role of its message; empty if turns are unknown.
        tokens: `[text, id, state, special]` of each token, with state `prompt`, `trained` or `cut`; of the tokens of an
            image, video or audio one entry, with their number as its fifth value.
    """

    role: str
    tokens: list[list[object]]


def tokens_by_turn(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, found: UntruncatedExample
) -> list[ShownTurn]:
    """Tokens of an example before truncation, by turn.

    A tokenizer without offsets, or an example with more tokens than its text alone, as with media, gives one turn
    without a role, in which no token is `cut`.
    """
    spans = _token_spans(tokenizer, found.rendered)
    ids, labels = found.tokens.ids, found.tokens.labels
    if spans is None or len(spans) != len(ids):
        return [{"role": "", "tokens": tokens_without_turns(tokenizer, ids, labels)}]
    text, special = found.rendered.text, set(tokenizer.all_special_ids)
    borders = _turn_starts(tokenizer, template, found)
    starts = [start for start, _ in borders]
    turns: list[ShownTurn] = [{"role": role, "tokens": []} for _, role in borders]
    shown_to = 0
    for place, (begin, end) in enumerate(spans):
        state = CUT if not found.kept[place] else TRAINED if labels[place] != IGNORED else PROMPT
        # Two tokens may share a character (a part of an emoji each): it is shown once.
        shown = text[max(begin, shown_to) : end]
        shown_to = max(shown_to, end)
        turn = turns[max(0, bisect_right(starts, begin) - 1)]
        turn["tokens"].append([shown, ids[place], state, ids[place] in special])
    return [turn for turn in turns if turn["tokens"]]


def tokens_without_turns(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], labels: Sequence[int]
) -> list[list[object]]:
    """`[text, id, state, special]` of each token, with state `prompt` or `trained`."""
    special = set(tokenizer.all_special_ids)
    return [
        [tokenizer.decode([one]), one, TRAINED if label != IGNORED else PROMPT, one in special]
        for one, label in zip(ids, labels, strict=True)
    ]


def collapse_media(tokens: Sequence[list[object]], media: Collection[int]) -> list[list[object]]:
    """Merge consecutive media tokens with the same id and state into one entry with their number.

    Args:
        tokens: `[text, id, state, special]` of each token.
        media: ids of the tokens that stand for media.
    """
    shown: list[list[object]] = []
    for (name, _), run in groupby(tokens, key=lambda token: (token[1], token[2])):
        found = list(run)
        shown += [[*found[0], len(found)]] if name in media and len(found) > 1 else found
    return shown


def _token_spans(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[tuple[int, int]] | None:
    """Characters `[start, end)` of each token, tokenized in the same pieces as for training; None without offsets."""
    if not tokenizer.is_fast:
        return None
    borders = sorted({0, *(rendered.cuts or ()), len(rendered.text)})
    spans: list[tuple[int, int]] = []
    for start, end in pairwise(borders):
        found = tokenizer(
            rendered.text[start:end], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        spans += [(start + begin, start + stop) for begin, stop in found]
    return spans


def _turn_starts(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, found: UntruncatedExample
) -> list[tuple[int, str]]:
    """Character position and role of each turn, ascending, by rendering prefixes of the conversation.

    A default system prompt of the template is separated from the first message by the token that begins the later
    turns. A turn whose prefix the template rewrites or cannot render is part of the one before it.
    """
    messages, text = found.conversation.messages, found.rendered.text
    borders = [(0, str(messages[0]["role"]))]
    for number, message in enumerate(messages[1:], start=1):
        try:
            before = template.render(
                tokenizer, messages[:number], found.conversation.tools, markers=bool(template.marked)
            )
        except BadExample:
            continue
        before = MARKERS.sub("", before)
        if text.startswith(before) and len(before) > borders[-1][0]:
            borders.append((len(before), str(message["role"])))
    if len(borders) > 1 and messages[0]["role"] != "system":
        begins = next((one for one in tokenizer.all_special_tokens if text.startswith(one, borders[1][0])), None)
        start = text.rfind(begins, 0, text.find(messages[0]["content"])) if begins else 0
        if start > 0 and text[:start].count(begins or ""):
            borders = [(0, "system"), (start, str(messages[0]["role"])), *borders[1:]]
    return borders
