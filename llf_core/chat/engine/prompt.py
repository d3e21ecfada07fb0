"""Prompts of requests: rendered by the tokenizer's chat template, and tokenized."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llf_core.chat.request import RequestError
from llf_core.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.chat.request import ChatRequest

IMAGE_TYPES = {"image", "image_url", "input_image"}
"""Types of content parts with a picture."""


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
        RequestError: there is no template, or it refuses the messages.
        MemoryError: out of memory.
    """
    if not getattr(renderer, "chat_template", None):
        raise RequestError(
            "The model has no chat template. Expected a prompt instead of messages, or a model for conversations."
        )
    messages = [_message(one, number, in_parts=in_parts) for number, one in enumerate(request.messages)]
    if request.continue_last and messages[-1].get("role") != "assistant":
        raise RequestError(
            f"The last message is of the role {messages[-1].get('role')}. Expected one of the assistant to continue."
        )
    try:
        text = renderer.apply_chat_template(
            messages,
            tools=list(request.tools) or None,
            add_generation_prompt=not request.continue_last,
            continue_final_message=request.continue_last,
            tokenize=False,
            **request.template_options,
        )
    except MemoryError:
        raise
    except Exception as error:  # a template is a program that comes with the model
        raise RequestError(f"The model's chat template refuses the messages: {first_line(error)}") from error
    return str(text)


def encode_prompt(request: ChatRequest, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], str]:
    """Token ids and text of a request's prompt. A template writes the special tokens itself, plain text gets them here.

    Args:
        request: without pictures.
        tokenizer: the model's tokenizer.

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


def _message(message: Mapping[str, Any], number: int, *, in_parts: bool) -> dict[str, Any]:
    """A message as templates take it: content as text, arguments of tool calls as an object."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError(f"Message {number + 1} has no role. Expected system, user, assistant or tool.")
    found = {key: value for key, value in message.items() if value is not None}
    found["content"] = _content(message.get("content"), number, in_parts=in_parts)
    if found.get("tool_calls"):
        found["tool_calls"] = [_call(one, number) for one in found["tool_calls"]]
    return found


def _content(content: object, number: int, *, in_parts: bool) -> Any:
    if content is None or isinstance(content, str):
        text = content or ""
        return [{"type": "text", "text": text}] if in_parts else text
    if not isinstance(content, list):
        raise RequestError(
            f"The content of message {number + 1} is a {type(content).__name__}. Expected text or parts."
        )
    parts: list[dict[str, str]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in {"text", "input_text"} and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        elif kind in IMAGE_TYPES and in_parts:
            parts.append({"type": "image"})
        else:
            raise RequestError(
                f"Message {number + 1} has a part of type {kind}. Expected parts of type text"
                f"{' or image_url' if in_parts else ': the model reads text only'}."
            )
    return parts if in_parts else "".join(part["text"] for part in parts)


def _call(call: object, number: int) -> dict[str, Any]:
    """A tool call whose arguments are an object: OpenAI's API sends them as text, and templates write them as JSON."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RequestError(f"A tool call of message {number + 1} has no function with a name.")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise RequestError(
                f"The arguments of the tool call {function['name']} in message {number + 1} are not JSON: "
                f"{arguments[:100]}"
            ) from None
    return {**call, "function": {**function, "arguments": arguments}}
