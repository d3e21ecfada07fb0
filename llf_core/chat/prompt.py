"""Prompts of requests: rendered by the tokenizer's chat template, and tokenized."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import is_picture
from llf_core.chat.request import Failed, RequestError
from llf_core.generation.text_stream import PromptError, render_messages
from llf_core.untrusted.plain_json import replace_surrogates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.chat.request import ChatRequest

RENDERED_END = 1000
"""Characters at the end of a rendered prompt that show whether it has opened a thought."""
PROBE = 4096
"""Length of the texts that `longest_token` tokenizes."""


@dataclass(frozen=True)
class PromptForm:
    """The form in which a chat template takes messages, which must be that of training.

    Attributes:
        in_parts: whether the template takes content as a list of parts, as many vision models do.
        image_sign: placeholder of a picture in a text, for a vision model whose template takes content as text, as all
            named templates do; empty for other models.
    """

    renderer: PreTrainedTokenizerBase | ProcessorMixin
    in_parts: bool = False
    image_sign: str = ""


def prompt_form(tokenizer: PreTrainedTokenizerBase, processor: ProcessorMixin | None) -> PromptForm:
    """Find out which form the chat template of a tokenizer or processor takes, by rendering short messages."""
    if processor is None:
        return PromptForm(tokenizer)
    from llf_core.data.chat_template import OWN_TEMPLATE, ChatTemplate
    from llf_core.data.errors import DataError
    from llf_core.data.media import placeholder_of
    from llf_core.data.template_check import accepts_parts, media_placeholder

    own: Any = getattr(processor, "chat_template", None)
    renderer: Any = tokenizer if tokenizer.chat_template or not own else processor
    sign = ""
    with suppress(DataError, ValueError):  # no template to render with: the first request fails with it
        used = tokenizer.get_chat_template(renderer.chat_template if renderer is processor else None)
        if accepts_parts(ChatTemplate(OWN_TEMPLATE, used), tokenizer):
            return PromptForm(renderer, in_parts=True)
        if isinstance(own, str):
            sign = media_placeholder(ChatTemplate(OWN_TEMPLATE, own), tokenizer, "image") or ""
    return PromptForm(renderer, image_sign=sign or placeholder_of(processor, "image"))


def has_images(request: ChatRequest) -> bool:
    """Whether a message has a picture; then the model's processor makes the prompt."""
    return any(
        is_picture(part)
        for message in request.messages
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        for part in message["content"]
    )


def prompt_text(request: ChatRequest, form: PromptForm) -> str:
    """Render the messages of a request with the chat template.

    Raises:
        RequestError: there is no template, it refuses the messages, or they are malformed.
    """
    try:
        return render_messages(
            request.messages,
            form.renderer,
            tools=request.tools,
            continue_last=request.continue_last,
            in_parts=form.in_parts,
            image_sign=form.image_sign,
            options=request.template_options,
        )
    except PromptError as error:
        raise RequestError(str(error)) from error


def prepare(request: ChatRequest, tokenizer: PreTrainedTokenizerBase, form: PromptForm) -> ChatRequest:
    """The request, without pictures, with token ids in place of its messages or text.

    A template writes the special tokens itself, plain text gets them here; an empty one is the beginning-of-sequence
    token, if there is one. A lone surrogate, which tokenizers cannot encode, is read as U+FFFD.

    Raises:
        RequestError: see `prompt_text`, or the prompt has no tokens.
    """
    ids: list[int]
    rendered = None
    if request.prompt is not None:
        ids = tokenizer(replace_surrogates(request.prompt))["input_ids"]
        if not ids and tokenizer.bos_token_id is not None:
            ids = [tokenizer.bos_token_id]
    else:
        rendered = prompt_text(request, form)
        ids = tokenizer(replace_surrogates(rendered), add_special_tokens=False)["input_ids"]
        rendered = rendered[-RENDERED_END:]
    if not ids:
        raise RequestError("The prompt is empty. Expected at least one token.")
    return replace(request, messages=(), prompt=None, template_options={}, token_ids=tuple(ids), rendered=rendered)


def too_long(tokens: int, context: int, at_least: str = "") -> Failed:
    """The failure of a prompt that leaves no room for a reply."""
    return Failed(
        "too_long",
        f"The prompt has {at_least}{tokens:,} tokens; the model reads {context:,}, with its reply.",
        "Shorten the conversation, or begin a new one.",
    )


def characters_of(request: ChatRequest) -> int:
    """Length of the texts that a prompt has for certain: the contents of its messages, or its own."""
    found = len(request.prompt or "")
    for message in request.messages:
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        texts = (part.get("text") for part in parts if isinstance(part, dict))
        found += sum(len(text) for text in texts if isinstance(text, str))
    return found


def longest_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Maximum number of characters of a token; None if a long word, blanks or unknown characters can be one."""
    longest = max(map(len, tokenizer.get_vocab()), default=0)
    for text in ("a" * PROBE, " " * PROBE, "\ue000" * PROBE):
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) * longest < PROBE:
            return None
    return longest
