"""Tokens that end a response, and that a chat template writes only once the next turn follows.

GLM-4.5 opens the next turn with `<|user|>`, Apertus closes a response with `<|assistant_end|>` in front of it, and Hy3
with its EOS token; after the last response none of them writes anything. These tokens end generation, so a response has
to end with them in training too. TRL 1.16.0 does the same for GLM-4.5 (`chat_templates/glm4moe_training.jinja`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import ANSWER
from llf_core.untrusted import MODEL_SETTINGS_BYTES, read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.formats.conversation import Message

    Render = Callable[[Sequence[Message], Sequence[Mapping[str, object]] | None], str]

FUNCTION = "find"
CALL = {"id": "call00001", "type": "function", "function": {"name": FUNCTION, "arguments": {"place": "x"}}}
TOOL = {
    "type": "function",
    "function": {
        "name": FUNCTION,
        "description": "Finds a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "A place."}}},
    },
}
ASKED: Message = {"role": "user", "content": "Question"}
REPLIED: Message = {"role": ANSWER, "content": "Reply"}
CALLED: Message = {"role": ANSWER, "content": "", "tool_calls": [CALL]}
RETURNED: Message = {"role": "tool", "content": "Result", "name": FUNCTION, "tool_call_id": CALL["id"]}


class TurnEnds(NamedTuple):
    """Tokens to add to a response in words (`reply`) or with calls (`call`) that the template leaves without an end."""

    reply: str = ""
    call: str = ""

    def after(self, message: Message) -> str:
        """The token after a message of the assistant, which rendering appends."""
        return self.call if message.get("tool_calls") else self.reply


NOTHING = TurnEnds()


def find_turn_ends(render: Render, tokenizer: PreTrainedTokenizerBase) -> TurnEnds:
    """Find the tokens with which a tokenizer's own template continues after a response that it leaves without an end.

    A token counts only if the model's own files list it as a stop token.
    """
    stops = _generation_stops(tokenizer)
    return TurnEnds(
        next_token(render, stops),
        next_token(render, stops, (ASKED, CALLED, RETURNED), (TOOL,)),
    )


def next_token(
    render: Render,
    tokens: Sequence[str],
    messages: Sequence[Message] = (ASKED, REPLIED, ASKED),
    tools: Sequence[Mapping[str, object]] | None = None,
) -> str:
    """Find the token that a template writes directly after a response once the next turn follows.

    Empty if none of `tokens` follows, the response ends with one of them, or the template rewrites it or cannot render
    the conversation.
    """
    for given in (list(messages), [one | {"parts": [{"type": "text", "text": one["content"]}]} for one in messages]):
        try:
            text, longer = (render(part, tools) for part in (given[:-1], given))
        except BadExample:
            continue
        if not longer.startswith(text) or text.rstrip().endswith(tuple(tokens)):
            return ""
        return max((one for one in tokens if longer.startswith(one, len(text))), key=len, default="")
    return ""


def _generation_stops(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Tokens at which generation ends: the EOS token, and those of the model's files in the tokenizer's folder.

    As in transformers, `generation_config.json` counts, or `config.json` where it has none.
    """
    folder = Path(tokenizer.name_or_path or os.devnull)
    ids: list[object] = []
    for name in ("generation_config.json", "config.json"):
        # The cache of a hub has links.
        path = Path(os.path.realpath(folder / name))
        settings = read_object_or_empty(path, MODEL_SETTINGS_BYTES) if folder.is_dir() else {}
        asked = settings.get("eos_token_id")
        ids = asked if isinstance(asked, list) else [] if asked is None else [asked]
        if ids:
            break
    known = [one for one in ids if isinstance(one, int) and 0 <= one < len(tokenizer)]
    found = {str(one) for one in tokenizer.convert_ids_to_tokens(known)} | {tokenizer.eos_token}
    return tuple(sorted(str(one) for one in found if one))
