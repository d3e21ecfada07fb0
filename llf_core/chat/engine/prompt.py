"""Prompts of requests: rendered by the tokenizer's chat template, and tokenized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.chat.request import RequestError
from llf_core.generation.message_prompt import IMAGE_TYPES, PromptError, render_messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.chat.request import ChatRequest


def has_images(request: ChatRequest) -> bool:
    """Whether a message has a picture; then the model's processor makes the prompt.

    Args:
        request: the request.
    """
    return any(
        isinstance(part, dict) and part.get("type") in IMAGE_TYPES
        for message in request.messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def prompt_text(
    request: ChatRequest, renderer: PreTrainedTokenizerBase | ProcessorMixin, *, in_parts: bool = False
) -> str:
    """Render the messages of a request with the chat template, as the model was trained to read them.

    Args:
        request: has messages.
        renderer: tokenizer or processor with the template.
        in_parts: whether the template takes content as a list of parts, as those of vision models do.

    Raises:
        RequestError: there is no template, it refuses the messages, they are not of the form that templates take, or
            the last message to continue is not one of the assistant.
        MemoryError: out of memory.
    """
    try:
        return render_messages(
            request.messages,
            renderer,
            tools=request.tools,
            continue_last=request.continue_last,
            in_parts=in_parts,
            options=request.template_options,
        )
    except PromptError as error:
        raise RequestError(str(error)) from error


def encode_prompt(request: ChatRequest, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], str]:
    """Token ids and text of a request's prompt. A template writes the special tokens itself, plain text gets them here.

    Args:
        request: without pictures.
        tokenizer: the model's tokenizer.

    Returns:
        Token ids, at least one, and the text. An empty prompt is the beginning-of-sequence token, if there is one.

    Raises:
        RequestError: there is no template, it refuses the messages, or the prompt has no tokens.
        TypeError: the text has a lone surrogate, which tokenizers cannot encode.
        MemoryError: out of memory.
    """
    ids: list[int]
    if request.prompt is not None:
        text = request.prompt
        ids = tokenizer(text)["input_ids"]
        if not ids and tokenizer.bos_token_id is not None:
            ids = [tokenizer.bos_token_id]
    else:
        text = prompt_text(request, tokenizer)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise RequestError("The prompt is empty. Expected at least one token.")
    return ids, text
