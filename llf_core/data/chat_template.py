"""Chat templates: a named one or the tokenizer's own, chosen and rendered to text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from llf_core.config.did_you_mean import listed
from llf_core.data.errors import BadExample, DataError
from llf_core.data.media import content_parts
from llf_core.data.template_facts import NO_CHAT_TEMPLATE, NOTHING, TurnEnds, find_turn_ends, why_never_ends
from llf_core.data.templates import FastRenderer, named_template, render
from llf_core.models.bounded_templates import limit_templates, template_limit_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.conversation import Message

Result = TypeVar("Result")
OWN_TEMPLATE = "the model's own"
NO_TEMPLATE = "none (plain text)"
GENERATION = re.compile(r"\{%-?\s*generation\b")
MAX_ERROR_LENGTH = 200


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template.

    Attributes:
        name: name of a template that ships with LLF, "the model's own", or that there is none.
        jinja: its source, as `tokenizer.apply_chat_template` takes it.
        end: token that ends an answer; None if only the template itself determines it.
        options: further variables of the template, such as `enable_thinking`.
        marked: source that renders the same text with markers; only of a template that ships with LLF.
        stop: further stop tokens of generation.
        tokens: special tokens of the tokenizer by name, for a template that ships with LLF.
        fast_renderer: renders the same text faster, for conversations without tools and reasoning.
        turn_ends: tokens to add to responses that the tokenizer's own template leaves without an end.
    """

    name: str
    jinja: str
    end: str | None = None
    options: tuple[tuple[str, bool], ...] = ()
    marked: str = ""
    stop: tuple[str, ...] = ()
    tokens: tuple[tuple[str, str], ...] = ()
    fast_renderer: FastRenderer | None = None
    turn_ends: TurnEnds = NOTHING

    @cached_property
    def drops_earlier_reasoning(self) -> bool:
        """Whether a template that ships with LLF leaves out the reasoning of earlier answers, see `render_all`."""
        return "preserve_thinking" in self.jinja and not dict(self.options).get("preserve_thinking")

    def apply_to(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Set the template and its end token (as EOS token) on a tokenizer. The model's own template is kept."""
        if self.name not in {OWN_TEMPLATE, NO_TEMPLATE}:
            tokenizer.chat_template, tokenizer.eos_token = self.jinja, self.end

    def end_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids at which generation stops, without tokens that the tokenizer lacks.

        For the model's own template only those of `turn_ends`, since the model's generation config has the others.
        """
        tokens = dict.fromkeys(one for one in (self.end, *self.stop, *self.turn_ends) if one)
        return [tokenizer.convert_tokens_to_ids(one) for one in tokens if _knows(tokenizer, one)]

    def render(
        self,
        tokenizer: PreTrainedTokenizerBase,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None = None,
        *,
        add_generation_prompt: bool = False,
        markers: bool = False,
    ) -> str:
        """Render messages to text, as a server does for the same template.

        Args:
            tools: functions that may be called, as JSON schemas.
            markers: whether to keep the markers of `llf_core.data.templates` in the text.

        Raises:
            DataError: the template exceeds its limits of steps or length.
        """
        if not messages:
            return ""
        try:
            if self.marked:
                variables: dict[str, object] = {
                    "messages": messages,
                    "tools": tools,
                    "add_generation_prompt": add_generation_prompt,
                }
                variables |= dict(self.tokens) | dict(self.options)
                text = render(self.marked if markers else self.jinja, variables)
            else:
                text = with_either_arguments(
                    content_parts(messages),
                    lambda given: tokenizer.apply_chat_template(
                        given,
                        tools=list(tools) if tools else None,
                        chat_template=self.jinja,
                        add_generation_prompt=add_generation_prompt,
                        tokenize=False,
                        **dict(self.options),
                    ),
                )
            text.encode()
        except Exception as error:  # noqa: BLE001 - what the text of a template raises is not known
            raise template_error(error) from None
        return text


def choose_template(
    name: str | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    enable_thinking: bool | None = None,
    preserve_thinking: bool = False,
    tool_format: str | None = None,
) -> ChatTemplate:
    """Choose a named template, or the tokenizer's own, whose steps and length are limited (see `limit_templates`).

    Args:
        name: `template` of the config; None for the tokenizer's own.
        enable_thinking: passed to the template if it uses this variable; None for the template's default.
        preserve_thinking: passed to the template if it uses this variable; keeps the reasoning of earlier answers.
        tool_format: how a named template writes tools and calls; None for the format of its models.

    Raises:
        DataError: unknown name, or a tokenizer without a default chat template, with one that exceeds its limits, or
            without the token that ends an answer.
    """
    if name is not None:
        named = named_template(name)
        end = tokenizer.eos_token if named.end == "eos_token" else named.end
        if end is None:
            raise DataError(f"The template {name} ends responses with the EOS token, and the tokenizer has none.")
        if why := why_never_ends(name, end, partial(_knows, tokenizer)):
            raise DataError(why)
        jinja = named.jinja(space=_puts_a_blank(tokenizer), tools=tool_format)
        options = _options(jinja, enable_thinking, preserve_thinking)
        tokens = tuple((key, str(value)) for key, value in tokenizer.special_tokens_map.items())
        marked, plain = named.marked(tools=tool_format), FastRenderer.of(name, dict(tokens))
        return ChatTemplate(name, jinja, end, options, marked, named.stop, tokens, plain)
    limit_templates()
    if not tokenizer.chat_template:
        raise DataError(NO_CHAT_TEMPLATE)
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        raise DataError(
            f"The tokenizer has several chat templates ({listed(tokenizer.chat_template)}), and none of them is named "
            "default. Set template, or keep one of them in the model's tokenizer."
        )
    jinja = tokenizer.get_chat_template()
    own = ChatTemplate(OWN_TEMPLATE, jinja, options=_options(jinja, enable_thinking, preserve_thinking))
    return (
        own
        if GENERATION.search(jinja)
        else replace(own, turn_ends=find_turn_ends(partial(own.render, tokenizer), tokenizer))
    )


def _options(jinja: str, enable_thinking: bool | None, preserve_thinking: bool) -> tuple[tuple[str, bool], ...]:
    """Variables that the template uses. Others would only change the cache key."""
    asked = {"enable_thinking": enable_thinking, "preserve_thinking": preserve_thinking or None}
    return tuple((name, value) for name, value in asked.items() if value is not None and name in jinja)


def _puts_a_blank(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer adds a space before the first word of a text, as SentencePiece does."""
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(ids) and str(tokenizer.convert_ids_to_tokens(ids)[0]).startswith("▁")


def _knows(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    unknown = tokenizer.convert_tokens_to_ids(token) in {None, tokenizer.unk_token_id}
    return not unknown or token == tokenizer.unk_token


def template_error(error: Exception) -> BadExample:
    """Convert a template's error for a conversation to a `BadExample`, so that only this record is dropped.

    Raises:
        DataError: the template exceeds a limit, so no further record may be rendered.
    """
    from jinja2.exceptions import TemplateError

    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, template_limit_error()):
        raise DataError(
            f"The chat template of the tokenizer exceeds its limits: {error}. Expected a template "
            "that renders a conversation in some thousand steps. Download the model from its original source, or set "
            "template."
        )
    reason = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
    return BadExample(f"the chat template cannot render it: {reason[:MAX_ERROR_LENGTH].rstrip('.')}")


def with_either_arguments(messages: list[Message], render: Callable[[list[Message]], Result]) -> Result:
    """Render messages; if the template takes the arguments of calls only as JSON text, with the arguments as text.

    Most templates take objects. Those of DeepSeek-V3 and R1 concatenate them with text, which raises a `TypeError`.
    """
    try:
        return render(messages)
    except TypeError as error:
        if not any(message.get("tool_calls") for message in messages):
            raise
        try:
            return render([_with_text_arguments(message) for message in messages])
        except Exception:  # noqa: BLE001 - what the text of a template raises is not known
            raise error from None


def _with_text_arguments(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    functions = [
        {**call["function"], "arguments": json.dumps(call["function"].get("arguments"), ensure_ascii=False)}
        for call in calls
    ]
    return {**message, "tool_calls": [{**call, "function": one} for call, one in zip(calls, functions, strict=True)]}
