"""Prompts with pictures, by the processor of a vision model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import checked_url, is_picture
from llf_core.chat.prompt import prompt_text
from llf_core.chat.request import RequestError
from llf_core.data.conversation import Medium
from llf_core.data.errors import BadExample, DataError
from llf_core.data.media import process
from llf_core.data.media_files import INLINE, MediaLimits
from llf_core.models.tokenizer import reads_images

if TYPE_CHECKING:
    import torch
    from transformers import ProcessorMixin

    from llf_core.chat.prompt import PromptForm
    from llf_core.chat.request import ChatRequest


def image_inputs(
    request: ChatRequest, processor: ProcessorMixin | None, form: PromptForm, device: torch.device
) -> tuple[list[int], str, dict[str, Any]]:
    """Token ids, rendered text and model inputs of a request with pictures, made by the processor as for training.

    Returns:
        Token ids including the pictures', the rendered text, and the inputs of `generate`: `input_ids` and
        `attention_mask` `[1, prompt]`, int64, and the pictures, whose names and shapes depend on the model.

    Raises:
        RequestError: the model reads no pictures, see `prompt_text` and `checked_url`, or the processor refuses them.
    """
    if processor is None or not reads_images(processor):
        raise RequestError("A message has a picture, and the model reads text only. Expected a vision model.")
    text = prompt_text(request, form)
    pictures = [
        Medium("image", INLINE + checked_url(part, number).partition(",")[2])
        for number, message in enumerate(request.messages)
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if is_picture(part)
    ]
    limits = MediaLimits(**request.media_limits)
    try:
        made = process(processor, [text], [pictures], limits, return_tensors="pt")
    except (BadExample, DataError) as error:
        raise RequestError(f"The pictures of the messages cannot be used: {error}.") from error
    inputs = {name: value.to(device) if hasattr(value, "to") else value for name, value in made.items()}
    return inputs["input_ids"][0].tolist(), text, inputs
