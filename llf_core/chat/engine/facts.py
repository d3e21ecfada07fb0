"""Capabilities and memory needs of a loaded model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.chat.prompt import longest_token
from llf_core.generation.replies.reply_parser import reply_format
from llf_core.generation.text_stream import context_length
from llf_core.models.tokenizer import reads_images

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


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
