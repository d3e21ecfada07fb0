"""Prompts of conversations as text, and generated tokens as a stream of text with stop strings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llf_core.models.architecture import first_position
from llf_core.models.errors import first_line
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

UNFINISHED = "\ufffd"  # a decoder's placeholder for the first bytes of a character

WINDOW = 16
"""Number of tokens after which text is not decoded again; at most twice as many tokens are decoded at a time."""


class TextStream:
    """Converts the token ids of a completion to text as they arrive, and ends it at stop strings.

    Text that may still change is held back: an incomplete character, or the beginning of a stop string.

    Args:
        ends: end-of-sequence token ids, which are not part of the text.
        stops: stop strings; the completion ends before them.
        on_text: called with each new piece by `put` and `close`; the concatenated pieces are `text`.
        keep_special: whether special tokens are part of the text, for a parser of tool calls.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        ends: Collection[int],
        stops: Sequence[str] = (),
        on_text: Callable[[str], object] | None = None,
        *,
        keep_special: bool = False,
    ) -> None:
        self._tokenizer, self._ends, self._on_text = tokenizer, frozenset(ends), on_text
        self._skip_special = not keep_special
        self._stops = [stop for stop in stops if stop]
        self._watches = bool(self._stops) or on_text is not None
        self._ids: list[int] = []  # those that are still decoded: the first `_context` of them are part of `_fixed`
        self._context = 0
        self._fixed = self._head = ""  # the text before the others, and that of the first `_context` ids
        self._given = 0
        self.text = ""

    def put(self, token: int) -> bool:
        """Add a token id, and give `on_text` the text that is now certain; whether the completion ends with it.

        Without `on_text` and stop strings nothing is decoded before `close`.
        """
        if token in self._ends:
            self.close()
            return True
        self._ids.append(token)
        if not self._watches:
            return False
        text = self._decode()
        cut = self._stopped(text.rstrip(UNFINISHED))
        if cut is not None:
            self.text = text[:cut]
            self._give(cut)
            self._watches, self._ids = False, []
            return True
        self.text = text
        self._give(len(text) - self._held(text))
        return False

    def close(self) -> None:
        """Emit text that was held back, since no token follows."""
        if self._ids:
            self.text = self._decode()
            cut = self._stopped(self.text)
            self.text = self.text if cut is None else self.text[:cut]
        self._give(len(self.text))

    def _decode(self) -> str:
        """The whole text. Tokens leave the window once later ones cannot change their text."""
        tail = self._text_of(self._ids)[len(self._head) :]
        text = self._fixed + tail
        if self._watches and len(self._ids) - self._context >= WINDOW and not tail.endswith(UNFINISHED):
            self._ids = self._ids[self._context :]  # a decoder may treat the first token of a text differently
            self._context, self._fixed, self._head = len(self._ids), text, self._text_of(self._ids)
        return text

    def _text_of(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skip_special)
        return text

    def _stopped(self, text: str) -> int | None:
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(found, default=None)

    def _held(self, text: str) -> int:
        """Number of final characters that may change: an incomplete character, or the beginning of a stop string."""
        whole = text.rstrip(UNFINISHED)
        begun = [
            size
            for stop in self._stops
            for size in range(1, min(len(stop), len(whole) + 1))
            if whole.endswith(stop[:size])
        ]
        return len(text) - len(whole) + max(begun, default=0)

    def _give(self, end: int) -> None:
        if self._on_text is not None and end > self._given:
            self._on_text(self.text[self._given : end])
            self._given = end


IMAGE_TYPES = ("image", "image_url", "input_image")
"""Types of content parts with a picture. A tuple, since a client may send an unhashable type."""
TEXT_TYPES = ("text", "input_text")


class PromptError(ValueError):
    """A conversation cannot be rendered. The message names the field, its value and what was expected."""


def context_length(model: PreTrainedModel) -> int | None:
    """Number of tokens that a model has positions for; None if its config sets no limit, as with ALiBi."""
    config = model.config.get_text_config(decoder=True)
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return found - first_position(model) if isinstance(found, int) and found > 0 else None


def takes_tools(renderer: PreTrainedTokenizerBase) -> bool:
    """Whether a chat template renders tools, by the word `tools` in it; others leave them out silently."""
    return "tools" in str(renderer.chat_template or "")


def render_messages(  # noqa: PLR0913 - what a template takes
    messages: Sequence[Mapping[str, object]],
    renderer: PreTrainedTokenizerBase | ProcessorMixin,
    *,
    tools: Sequence[Mapping[str, object]] = (),
    continue_last: bool = False,
    in_parts: bool = False,
    image_sign: str = "",
    options: Mapping[str, object] | None = None,
) -> str:
    """Render messages in OpenAI's format with the chat template.

    Args:
        image_sign: placeholder of a picture in the text, for a template of a vision model that takes content as text;
            empty for models without pictures.
        options: further variables of the template.

    Raises:
        PromptError: there is no template, it refuses the messages, or they are malformed.
    """
    if not getattr(renderer, "chat_template", None):
        raise PromptError(
            "The model has no chat template. Expected a prompt instead of messages, or a model for conversations."
        )
    conversation = [_message(one, number, in_parts, image_sign) for number, one in enumerate(messages)]
    role = conversation[-1]["role"] if conversation else None
    if continue_last and role != "assistant":
        raise PromptError(f"The last message is of the role {role}. Expected one of the assistant to continue.")
    try:
        text = renderer.apply_chat_template(
            conversation,
            tools=list(tools) or None,
            add_generation_prompt=not continue_last,
            continue_final_message=continue_last,
            tokenize=False,
            **(options or {}),
        )
    except MemoryError:
        raise
    except Exception as error:  # a template is a program that comes with the model
        raise PromptError(f"The model's chat template refuses the messages: {first_line(error)}") from error
    return str(text)


def _message(message: Mapping[str, object], number: int, in_parts: bool, image_sign: str) -> dict[str, object]:
    """A message as templates take it: content as text, arguments of tool calls as an object."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise PromptError(f"Message {number + 1} has no role. Expected system, user, assistant or tool.")
    found = {key: value for key, value in message.items() if value is not None}
    found["content"] = _content(message.get("content"), number, in_parts, image_sign)
    if calls := found.get("tool_calls"):
        if not isinstance(calls, list | tuple):
            raise PromptError(f"tool_calls of message {number + 1} is of type {type(calls).__name__}. Expected a list.")
        found["tool_calls"] = [_call(one, number) for one in calls]
    return found


def _content(content: object, number: int, in_parts: bool, image_sign: str) -> object:
    if content is None or isinstance(content, str):
        text = content or ""
        return [{"type": "text", "text": text}] if in_parts else text
    if not isinstance(content, list):
        raise PromptError(f"The content of message {number + 1} is a {type(content).__name__}. Expected text or parts.")
    parts: list[dict[str, str]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXT_TYPES and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        elif kind in IMAGE_TYPES and in_parts:
            parts.append({"type": "image"})
        elif kind in IMAGE_TYPES and image_sign:
            parts.append({"type": "text", "text": image_sign})
        else:
            raise PromptError(
                f"Message {number + 1} has a part of type {brief(str(kind))}. Expected parts of type text"
                f"{' or image_url' if in_parts or image_sign else ': the model reads text only'}."
            )
    return parts if in_parts else "".join(part["text"] for part in parts)


def _call(call: object, number: int) -> dict[str, Any]:
    """A tool call with its arguments as an object, as templates expect; OpenAI's API sends them as text."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise PromptError(f"A tool call of message {number + 1} has no function with a name.")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise PromptError(
                f"The arguments of the tool call {function['name']} in message {number + 1} are not JSON: "
                f"{arguments[:100]}"
            ) from None
    return {**call, "function": {**function, "arguments": arguments}}
