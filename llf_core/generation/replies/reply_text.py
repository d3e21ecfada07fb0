"""Text of a complete reply, for predictions and metrics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llf_core.generation.replies.parts import Piece
from llf_core.generation.replies.reply_formats import recognize_format
from llf_core.generation.replies.reply_parser import ReplyParser
from llf_core.generation.text_stream import TextStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.generation.replies.reply_formats import ReplyFormat


def reply_text(
    tokens: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
    *,
    prompt: str = "",
    tools: Sequence[Mapping[str, object]] = (),
) -> str:
    """Text of a reply without its reasoning, followed by its calls as JSON; metrics compare it with the label.

    Args:
        tokens: token ids of the reply, up to the first of `ends`.
        prompt: the rendered prompt, which may have opened a thought.
        tools: the offered functions, in OpenAI's format. Without any, calls are text.
    """
    stream = TextStream(tokenizer, ends, keep_special=True)
    for token in tokens:
        if stream.put(token):
            break
    stream.close()
    parser = ReplyParser(reply_format(tokenizer), tools=tools, prompt=prompt)
    content = ""
    calls: dict[int, dict[str, str]] = {}
    for part in [*parser.feed(stream.text), *parser.finish()]:
        if isinstance(part, Piece):
            content += part.text if part.kind == "content" else ""
        else:
            call = calls.setdefault(part.index, {"name": "", "arguments": ""})
            call["name"] += part.name
            call["arguments"] += part.arguments
    return text_with_calls(content, [call for _, call in sorted(calls.items())])


def text_with_calls(content: str, calls: Sequence[Mapping[str, str]]) -> str:
    """A text followed by its calls (`name` and `arguments` of each) as JSON."""
    return content + (json.dumps(list(calls), ensure_ascii=False) if calls else "")


def reply_format(tokenizer: PreTrainedTokenizerBase) -> ReplyFormat:
    """How a model writes reasoning and tool calls, from its chat template and special tokens."""
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    template = tokenizer.chat_template
    return recognize_format(template if isinstance(template, str) else None, special)
