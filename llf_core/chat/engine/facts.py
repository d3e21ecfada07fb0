"""Capabilities and memory needs of a loaded model, and prompts with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import checked_url, is_picture
from llf_core.chat.prompt import longest_token, prompt_text
from llf_core.chat.request import RequestError
from llf_core.data.conversation import Medium
from llf_core.data.errors import BadExample, DataError
from llf_core.data.media import process
from llf_core.data.media_files import INLINE, MediaLimits
from llf_core.generation.replies.reply_parser import reply_format
from llf_core.generation.text_stream import context_length
from llf_core.models.tokenizer import reads_images

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.chat.prompt import PromptForm
    from llf_core.chat.request import ChatRequest


@dataclass(frozen=True)
class EngineFacts:
    """Capabilities of a model.

    Attributes:
        context: maximum number of tokens of a prompt with its reply; None if the model has no limit.
        sees_images: whether messages may have pictures.
        thinks: whether its chat template has reasoning.
        calls_tools: whether its chat template renders tools, and its calls can be read.
        plain: why `model.generate` is used, so that replies run one after the other; None if the fast loop is used.
    """

    context: int | None
    longest_token: int | None
    sees_images: bool
    thinks: bool
    calls_tools: bool
    plain: str | None


def read_facts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    processor: ProcessorMixin | None,
    plain: str | None,
) -> EngineFacts:
    """Read the capabilities of a model; `processor` is None for a model of text."""
    template = str(getattr(processor, "chat_template", None) or tokenizer.chat_template or "")
    form = reply_format(tokenizer)
    return EngineFacts(
        context=context_length(model),
        longest_token=longest_token(tokenizer),
        sees_images=reads_images(processor),
        thinks=form.harmony or "enable_thinking" in template or any(one.begin in template for one in form.thoughts),
        calls_tools="tools" in template and bool(form.calls or form.harmony),
        plain=plain,
    )


def token_bytes(model: PreTrainedModel) -> int:
    """Bytes of the keys and values of one token in transformers' `DynamicCache`.

    `2 * layers * key_value_heads * head_dim` numbers in the model's dtype. Layers that keep less, such as those with a
    sliding window, are counted in full.
    """
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", 1)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kept * size * model.dtype.itemsize)


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
