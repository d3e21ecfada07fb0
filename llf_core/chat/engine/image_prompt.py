"""Prompts with pictures: what a vision model's processor makes of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.chat.engine.prompt import prompt_text
from llf_core.chat.picture import PictureError, part_url, picture_bytes
from llf_core.chat.request import RequestError
from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import Medium
from llf_core.data.media_files import INLINE, open_image
from llf_core.data.media_limits import MediaLimits
from llf_core.generation.message_prompt import IMAGE_TYPES
from llf_core.models.errors import first_line

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.chat.request import ChatRequest


def image_inputs(
    request: ChatRequest,
    processor: ProcessorMixin | None,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> tuple[list[int], str, dict[str, Any]]:
    """Token ids, text and model inputs of a request with pictures, which only the model's own processor can make.

    Args:
        request: a message has a picture.
        processor: the model's processor; None if it has none.
        tokenizer: the model's tokenizer, whose template is used if the processor has none.
        device: device of the model.

    Returns:
        Token ids with those of the pictures, the rendered text, and the inputs of `generate`: `input_ids` and
        `attention_mask` `[1, prompt]`, int64, and the pictures, whose names and shapes depend on the model.

    Raises:
        RequestError: the model sees no pictures or has no chat template, the template refuses the messages, the last
            message to continue is not one of the assistant, a picture is no data URL or cannot be read, or the
            processor refuses it.
        MemoryError: out of memory.
        RuntimeError: out of memory on the model's device.
    """
    if processor is None or not hasattr(processor, "image_processor"):
        raise RequestError("A message has a picture, and the model reads text only. Expected a vision model.")
    renderer = processor if getattr(processor, "chat_template", None) else tokenizer
    text = prompt_text(request, renderer, in_parts=True)
    pictures = [
        _picture(part, number)
        for number, message in enumerate(request.messages)
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if isinstance(part, dict) and part.get("type") in IMAGE_TYPES
    ]
    try:
        made = processor(text=[text], images=[pictures], return_tensors="pt", add_special_tokens=False)
    except MemoryError:
        raise
    except Exception as error:
        raise RequestError(f"The model's processor refuses the pictures: {first_line(error)}") from error
    inputs = dict(made.to(device))
    return inputs["input_ids"][0].tolist(), text, inputs


def _picture(part: dict[str, Any], number: int) -> Image:
    """The picture of a content part: bytes as a data URL, never a file or an address that this process would read."""
    subject, url = f"The picture of message {number + 1}", part_url(part)
    try:
        picture_bytes(url, subject)
        return open_image(Medium("image", INLINE + str(url).partition(",")[2]), MediaLimits())
    except PictureError as error:
        raise RequestError(str(error)) from error
    except BadExample as error:
        raise RequestError(f"{subject}: {error}.") from error
