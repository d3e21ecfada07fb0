"""Renders conversations and finds the answers in their text: by markers, generation blocks, or prefixes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from llf_core.data.chat_template import GENERATION, template_error, with_either_arguments
from llf_core.data.common_prefix import common_prefix_length
from llf_core.data.conversation import ANSWER, PLAIN, Rendered
from llf_core.data.errors import BadExample
from llf_core.data.media import PLACEHOLDER, content_parts
from llf_core.data.templates import ANSWER_END, ANSWER_START, BOUNDARY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.chat_template import ChatTemplate
    from llf_core.data.conversation import Conversation, Message

MARKERS = re.compile(f"([{BOUNDARY}{ANSWER_START}{ANSWER_END}])")
SHOWN_CHARACTERS = 60
MAX_CONVERSATION_LENGTH = 40_000_000
"""Maximum number of characters of a conversation: about ten million tokens."""
MAX_REPEATED_TURNS, MAX_REPEATED_LENGTH = 1_000_000, 1_000_000_000
"""Maximum number of turns and characters that are rendered to find the answers of a conversation by prefixes."""


class RewrittenAnswer(BadExample):
    """The template writes an answer differently once later turns follow, such as templates that remove reasoning."""


def render_all(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    *,
    last_only: bool = False,
) -> Iterator[tuple[Conversation, Rendered]]:
    """Render the examples of a conversation: one, or one per answer if the template rewrites earlier answers."""
    try:
        yield conversation, render_answers(template, tokenizer, conversation, last_only=last_only)
    except RewrittenAnswer:
        _check_repeats(conversation)
        parts = []
        for place, message in enumerate(conversation.messages):
            if message["role"] == ANSWER:
                part = replace(conversation, messages=conversation.messages[: place + 1])
                parts.append((part, render_answers(template, tokenizer, part, last_only=True)))
        yield from parts


def render_answers(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    *,
    last_only: bool = False,
) -> Rendered:
    """Render a conversation and find the ranges of its answers.

    A template that ships with LLF renders markers where answers begin and end; one with `{% generation %}` blocks marks
    the trained text itself. For all others prefixes are rendered: for the answer in turn i, the text up to the
    generation prompt (`messages[:i]`) and the text with the answer (`messages[:i + 1]`); the answer is what follows
    their common prefix. The text with the answer must be a prefix of the whole text, and the common prefix must include
    the text of `messages[:i]`, since the loss would otherwise use a context that never occurs in generation. An answer
    that the template leaves without an end gets one of `turn_ends`.
    """
    _length(conversation)
    if template.marked:
        return _by_markers(template, tokenizer, conversation, last_only=last_only)
    messages, tools = conversation.messages, conversation.tools
    if GENERATION.search(template.jinja):
        return _by_generation_blocks(template, tokenizer, conversation, last_only=last_only)
    if not last_only:
        _check_repeats(conversation)
    whole = template.render(tokenizer, messages, tools)
    places = [place for place, message in enumerate(messages) if message["role"] == ANSWER]
    answers = []
    for place in places[-1:] if last_only else places:
        prompt = template.render(tokenizer, messages[:place], tools, add_generation_prompt=True)
        last = place == len(messages) - 1
        turn = whole if last else template.render(tokenizer, messages[: place + 1], tools)
        if not whole.startswith(turn):
            raise RewrittenAnswer(f"the chat template renders turn {place + 1} differently when later turns follow")
        start = len(prompt) if turn.startswith(prompt) else _shared(template, tokenizer, conversation, place, turn)
        _check_answer(messages[place], turn[start:], template.name)
        closing = template.turn_ends.after(messages[place])
        if last:
            whole += closing
        answers.append((start, len(turn) + (len(closing) if whole.startswith(closing, len(turn)) else 0)))
    for tool in tools or ():
        if str(tool["function"].get("name", "")) not in whole[: answers[0][0]]:
            raise BadExample(f"the chat template ({template.name}) does not render the tools")
    return Rendered(whole, tuple(answers))


def render_prompt(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Rendered:
    """Render a conversation up to the start of its next answer, which the model generates."""
    _length(conversation)
    if template.marked:
        _check_no_markers(conversation)
    text = template.render(
        tokenizer,
        conversation.messages,
        conversation.tools,
        add_generation_prompt=True,
        markers=bool(template.marked),
    )
    return _parted(text) if template.marked else Rendered(text, ())


def _length(conversation: Conversation) -> int:
    length = sum(len(message["content"]) for message in conversation.messages)
    if length > MAX_CONVERSATION_LENGTH:
        raise BadExample(f"it has {length:,} characters, expected at most {MAX_CONVERSATION_LENGTH:,}; split it")
    return length


def _check_repeats(conversation: Conversation) -> None:
    """Limit the text that is rendered again for each answer of a conversation."""
    turns, length = len(conversation.messages), _length(conversation)
    answers = sum(message["role"] == ANSWER for message in conversation.messages)
    if answers > 1 and (answers * turns > MAX_REPEATED_TURNS or answers * length > MAX_REPEATED_LENGTH):
        raise BadExample(
            f"it has {turns:,} turns and {length:,} characters, which this chat template writes again for each answer; "
            "split it into shorter conversations"
        )


def _by_markers(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, last_only: bool
) -> Rendered:
    messages = conversation.messages
    if template.drops_earlier_reasoning and not last_only:
        asked = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=0)
        if any(message["role"] == ANSWER for message in messages[:asked]):
            raise RewrittenAnswer("the template removes earlier thinking")
    _check_no_markers(conversation)
    marked = None
    if template.fast_renderer is not None and not conversation.tools and messages[-1]["role"] == ANSWER:
        marked = template.fast_renderer.render(messages)
    if marked is None:
        marked = template.render(tokenizer, messages, conversation.tools, markers=True)
    rendered = _parted(marked)
    return replace(rendered, answers=rendered.answers[-1:]) if last_only else rendered


def _check_no_markers(conversation: Conversation) -> None:
    nested = [*(one for one in conversation.messages if len(one) > PLAIN), *(conversation.tools or ())]
    texts = [message["content"] for message in conversation.messages]
    texts += [json.dumps(one, ensure_ascii=False, default=str) for one in nested]
    if any(not text.isascii() and MARKERS.search(text) for text in texts):
        raise BadExample("its text has one of the private-use characters U+E001 to U+E003")


def _parted(marked: str) -> Rendered:
    # The start and end of an answer are tokenization boundaries too.
    parts = (
        marked.replace(ANSWER_START, BOUNDARY + ANSWER_START).replace(ANSWER_END, BOUNDARY + ANSWER_END).split(BOUNDARY)
    )
    place = len(parts[0])
    cuts: dict[int, None] = {}
    begins: list[int] = []
    ends: list[int] = []
    for number in range(1, len(parts)):
        part = parts[number]
        sign = part[:1]
        if sign in {ANSWER_START, ANSWER_END}:
            (begins if sign == ANSWER_START else ends).append(place)
            parts[number] = part = part[1:]
        cuts[place] = None
        place += len(part)
    return Rendered("".join(parts), tuple(zip(begins, ends, strict=True)), tuple(cuts))


def _by_generation_blocks(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, last_only: bool
) -> Rendered:
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        (text,), (spans,) = with_either_arguments(
            content_parts(conversation.messages),
            lambda given: render_jinja_template(
                [given],
                tools=list(conversation.tools) if conversation.tools else None,
                chat_template=template.jinja,
                return_assistant_tokens_mask=True,
                **tokenizer.special_tokens_map,
                **dict(template.options),
            ),
        )
    except Exception as error:  # noqa: BLE001 - what the text of a template raises is not known
        raise template_error(error) from None
    answers = _joined([(start, end) for start, end in spans if end > start])
    if not answers:
        raise BadExample("the chat template does not mark any generated text")
    if not last_only:
        _check_not_rewritten(template, tokenizer, conversation, text)
        return Rendered(text, answers)
    before = template.render(tokenizer, conversation.messages[:-1], conversation.tools)
    start = common_prefix_length(before, text)
    last = tuple(answer for answer in answers if answer[0] >= start)
    if not last:
        raise BadExample("the chat template does not mark the last response as generated text")
    return Rendered(text, last)


def _joined(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Join adjacent ranges, since a template may mark an answer and its end separately."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return tuple(found)


def _check_not_rewritten(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, whole: str
) -> None:
    _check_repeats(conversation)
    messages = conversation.messages
    for place, message in enumerate(messages[:-1]):
        if message["role"] == ANSWER:
            turn = template.render(tokenizer, messages[: place + 1], conversation.tools)
            if not whole.startswith(turn):
                raise RewrittenAnswer(f"the chat template renders turn {place + 1} differently when later turns follow")


def _shared(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int, turn: str
) -> int:
    """Start of an answer whose generation prompt opens a reasoning block that the rendered answer does not repeat."""
    messages, tools = conversation.messages[:place], conversation.tools
    prompt = template.render(tokenizer, messages, tools, add_generation_prompt=True)
    before = template.render(tokenizer, messages, tools)
    start = common_prefix_length(prompt, turn)
    if start < len(before):
        raise BadExample(f"the chat template changes the text before turn {place + 1}")
    return start


def _check_answer(message: Message, rendered: str, template: str) -> None:
    shown = "".join(rendered.split())
    content = PLACEHOLDER.sub("", message["content"]) if "parts" in message else message["content"]
    if "".join(content.split()) not in shown:
        begins = content.strip()[:SHOWN_CHARACTERS]
        raise BadExample(f"the chat template ({template}) drops a part of the response {begins!r}")
    for call in message.get("tool_calls", ()):
        if "".join(call["function"]["name"].split()) not in shown:
            raise BadExample(f"the chat template ({template}) does not render the call of {call['function']['name']}")
