"""Finds the text that a chat template writes around words and media, by rendering a message with a mark in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llf_core.data.common_prefix import common_prefix_length
from llf_core.data.errors import BadExample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llf_core.data.chat_template import ChatTemplate
    from llf_core.data.formats.conversation import Conversation, Message

MARK = "\ue000"
"""A character that no template writes (private use area)."""
WRITTEN_LIST = re.compile(r"""['"]type['"]\s*:""")


def answer_suffix(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int
) -> str:
    """Text that the template writes after the words of an answer, such as `<|im_end|>` and a newline.

    Found by adding a word to the answer: the common suffix of both texts, followed by the template's turn end.
    """
    text, other = _also_longer(template, tokenizer, conversation, place + 1)
    length = common_prefix_length(text[::-1], other[::-1])
    return text[len(text) - length :] + template.turn_ends.after(conversation.messages[place])


def answer_header(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int
) -> str:
    """Text that the template writes between the words of a question and its answer, such as `<|im_end|>` and a header.

    Found by adding a word to the question: the rest of the prompt after the common prefix of both prompts.
    """
    prompt, other = _also_longer(template, tokenizer, conversation, place, add_generation_prompt=True)
    return prompt[common_prefix_length(prompt, other) :]


def _also_longer(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    end: int,
    *,
    add_generation_prompt: bool = False,
) -> tuple[str, str]:
    """The messages before `end` as text, and the same with one more word in the last one."""
    *before, last = conversation.messages[:end]
    text, other = (
        template.render(tokenizer, [*before, one], conversation.tools, add_generation_prompt=add_generation_prompt)
        for one in (last, _longer(last))
    )
    return text, other


def _longer(message: Message) -> Message:
    longer = {**message, "content": message["content"] + MARK}
    if "parts" in message:
        longer["parts"] = [*message["parts"], {"type": "text", "text": MARK}]
    return longer


def accepts_parts(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer's own template takes lists of parts as content, as those of multimodal models do.

    Others raise an error, write the list's Python representation (`[{'type': 'text', …`), or nothing.
    """
    message = {"role": "user", "content": MARK}
    try:
        text = template.render(tokenizer, [{**message, "parts": [{"type": "text", "text": MARK}]}])
    except BadExample:
        try:
            template.render(tokenizer, [message])
        except BadExample:
            return True
        return False
    return MARK in text and WRITTEN_LIST.search(text) is None


def media_placeholder(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, kind: str) -> str | None:
    """Placeholder that a tokenizer's own template writes for an image, video or audio; None if unsupported."""
    if not accepts_parts(template, tokenizer):
        return None
    mark = {"type": "text", "text": MARK}
    message = {"role": "user", "content": "", "parts": [mark, {"type": kind}, mark]}
    try:
        parts = template.render(tokenizer, [message]).split(MARK)
    except BadExample:
        return None
    return parts[1] if len(parts) == 3 and parts[1] else None  # noqa: PLR2004 - before, between, after
