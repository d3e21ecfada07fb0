"""Renders conversations to text and finds the answers in it: by markers, generation blocks, or prefixes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from llf_core.config.did_you_mean import listed
from llf_core.data.errors import BadExample, DataError
from llf_core.data.formats.conversation import ANSWER, Message
from llf_core.data.media import PLACEHOLDER, content_parts
from llf_core.data.rendered import Rendered
from llf_core.data.template_tokens import NO_CHAT_TEMPLATE, why_never_ends
from llf_core.data.templates import ANSWER_END, ANSWER_START, BOUNDARY, FastRenderer, named_template, render
from llf_core.data.turn_ends import NOTHING, TurnEnds, find_turn_ends
from llf_core.models.bounded_templates import limit_templates, template_limit_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.formats.conversation import Conversation

Result = TypeVar("Result")
OWN_TEMPLATE = "the model's own"
NO_TEMPLATE = "none (plain text)"
SHOWN_CHARACTERS = 60
MARK = "\ue000"
"""A character that no template writes (private use area)."""
MARKERS = re.compile(f"([{BOUNDARY}{ANSWER_START}{ANSWER_END}])")
GENERATION = re.compile(r"\{%-?\s*generation\b")


MAX_ERROR_LENGTH = 200
WRITTEN_LIST = re.compile(r"""['"]type['"]\s*:""")
MAX_CONVERSATION_LENGTH = 40_000_000
"""Maximum number of characters of a conversation: ten million tokens, more than any context length."""
MAX_REPEATED_TURNS, MAX_REPEATED_LENGTH = 1_000_000, 1_000_000_000
"""Maximum number of turns and characters that are rendered to find the answers of a conversation by prefixes."""


def template_error(error: Exception) -> BadExample:
    """Convert a template's error for a conversation to a `BadExample`, so that only this record is dropped.

    Args:
        error: any exception, since the code of a template is unknown.

    Raises:
        DataError: the template exceeds a limit, so no further record may be rendered.
        MemoryError: the error was out of memory, which is not the record's fault.
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
    return BadExample(f"the chat template cannot render it: {reason[:MAX_ERROR_LENGTH]}")


def _with_either_arguments(messages: list[Message], render: Callable[[list[Message]], Result]) -> Result:
    """Render messages; if the template takes the arguments of calls only as JSON text, with the arguments as text.

    Most templates take objects. Those of DeepSeek-V3 and R1 concatenate them with text, which raises a `TypeError`.

    Args:
        messages: messages, whose calls have objects as arguments.
        render: renders messages.

    Returns:
        What `render` returns.

    Raises:
        Exception: any error of `render`, of the first try if both fail.
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


class RewrittenAnswer(BadExample):
    """The template writes an answer differently once later turns follow, as templates do that strip reasoning."""


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
        fast_renderer: faster renderer of conversations without tools and reasoning; gives the same text. None if there
            is none, as for the model's own template.
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
        """Whether a template that ships with LLF leaves out the reasoning of earlier answers.

        Then a conversation gives one example for each answer, see `render_all`.
        """
        return "preserve_thinking" in self.jinja and not dict(self.options).get("preserve_thinking")

    def apply_to(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Set the template on a tokenizer that is saved, so that a chat is rendered as in training.

        The end token of a named template becomes the EOS token, at which servers stop. The model's own template is
        kept.

        Args:
            tokenizer: changed in place.
        """
        if self.name not in {OWN_TEMPLATE, NO_TEMPLATE}:
            tokenizer.chat_template, tokenizer.eos_token = self.jinja, self.end

    def end_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids at which generation stops: those that end an answer.

        Args:
            tokenizer: tokenizer of the model.

        Returns:
            The ids, without tokens that the tokenizer lacks; of the model's own template only those of `turn_ends`,
            since the model's generation config has the others.
        """
        tokens = dict.fromkeys(one for one in (self.end, *self.stop, *self.turn_ends) if one)
        found = (tokenizer.convert_tokens_to_ids(one) for one in tokens)
        return [one for one in found if one not in {None, tokenizer.unk_token_id}]

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
            tokenizer: for its special tokens.
            messages: the messages.
            tools: functions that may be called, as JSON schemas; None for none.
            add_generation_prompt: whether to append the header of an answer.
            markers: whether to keep the markers of `llf_core.data.templates` in the text.

        Returns:
            The text; empty without messages.

        Raises:
            BadExample: the template raises an error, whose message is the reason, or writes invalid Unicode.
            DataError: the template exceeds its limits of steps or length.
            MemoryError: out of memory.
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
                return render(self.marked if markers else self.jinja, variables)
            text: str = _with_either_arguments(
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
    """Choose a named template, or the tokenizer's own.

    The trained model must see the same turns and end token in training as later in a chat.

    Args:
        name: `template` of the config; None for the tokenizer's own.
        tokenizer: tokenizer of the model.
        enable_thinking: passed to the template if it uses this variable; None for the template's default.
        preserve_thinking: passed to the template if it uses this variable; keeps the reasoning of earlier answers.
        tool_format: how a named template writes tools and calls; None for the format of its models.

    Returns:
        The template, for rendering in training and in the saved tokenizer.

    Raises:
        DataError: unknown name, a tokenizer without a chat template, with several of which none is the default, or with
            one that exceeds its limits, or a tokenizer without the token that ends an answer, so that the trained model
            would never stop.
        OSError: there is no such tool format, or too many files are open.
        MemoryError: out of memory.
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
    """Variables that the template uses. Others are left out, since they would only change the cache key."""
    asked = {"enable_thinking": enable_thinking, "preserve_thinking": preserve_thinking or None}
    return tuple((name, value) for name, value in asked.items() if value is not None and name in jinja)


def _puts_a_blank(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer adds a space before the first word of a text, as SentencePiece does."""
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(ids) and str(tokenizer.convert_ids_to_tokens(ids)[0]).startswith("▁")


def _knows(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    """Whether a text is a token of a tokenizer, which gives the id of the unknown token for any other."""
    unknown = tokenizer.convert_tokens_to_ids(token) in {None, tokenizer.unk_token_id}
    return not unknown or token == tokenizer.unk_token


def render_all(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    *,
    last_only: bool = False,
) -> Iterator[tuple[Conversation, Rendered]]:
    """Render the examples of a conversation: one, or one per answer if the template rewrites earlier answers.

    Templates of reasoning models leave out the reasoning of earlier answers. Then each answer is an example of its own,
    after the context that the model has when it generates the answer.

    Args:
        template: the template.
        tokenizer: for its special tokens.
        conversation: ends with an answer.
        last_only: whether to train on the last answer only.

    Yields:
        The conversation up to the example's last answer, and its text.

    Raises:
        BadExample: the conversation is too long or has one of the characters U+E001 to U+E003, or the template raises
            an error, changes the text before an answer, or leaves out a part of an answer, a call, or the tools. As
            `RewrittenAnswer` if the last answer alone is rewritten too.
        DataError: the template exceeds its limits of steps or length.
        MemoryError: out of memory.
    """
    try:
        yield conversation, render_answers(template, tokenizer, conversation, last_only=last_only)
    except RewrittenAnswer:
        _check_repeats(conversation)
        parts = []
        for place, message in enumerate(conversation.messages):
            if message["role"] == ANSWER:
                part = replace(conversation, messages=conversation.messages[: place + 1])
                parts.append((part, render_answers(template, tokenizer, part, last_only=True)))
        yield from parts


def render_answers(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    *,
    last_only: bool = False,
) -> Rendered:
    """Render a conversation and find the ranges of its answers.

    A template that ships with LLF renders markers where answers begin and end; one with `{% generation %}` blocks marks
    the trained text itself. For all others prefixes are rendered: for the answer in turn i, the text up to the
    generation prompt (`messages[:i]`) and the text with the answer (`messages[:i + 1]`); the answer is what follows
    their common prefix. The text with the answer must be a prefix of the whole text, and their common prefix must
    include the text of `messages[:i]` alone. Otherwise the loss would use a context that never occurs in generation. An
    answer that the template leaves without an end gets one of `turn_ends`.

    Args:
        template: the template.
        tokenizer: for its special tokens.
        conversation: ends with an answer.
        last_only: whether to find the last answer only.

    Returns:
        The text, with the range of each answer in characters.

    Raises:
        RewrittenAnswer: the template writes an answer differently once later turns follow (as templates do that strip
            earlier reasoning).
        BadExample: the conversation is too long or has one of the characters U+E001 to U+E003, or the template raises
            an error, changes the text before an answer, or leaves out a part of an answer, a call, or the tools.
        DataError: the template exceeds its limits of steps or length.
        MemoryError: out of memory.
    """
    _length(conversation)
    if template.marked:
        return _by_markers(template, tokenizer, conversation, last_only=last_only)
    messages, tools = conversation.messages, conversation.tools
    if GENERATION.search(template.jinja):
        return _by_generation_blocks(template, tokenizer, conversation, last_only=last_only)
    if not last_only:
        _check_repeats(conversation)
    whole = template.render(tokenizer, messages, tools)
    places = [place for place, message in enumerate(messages) if message["role"] == ANSWER]
    answers = []
    for place in places[-1:] if last_only else places:
        prompt = template.render(tokenizer, messages[:place], tools, add_generation_prompt=True)
        last = place == len(messages) - 1
        turn = whole if last else template.render(tokenizer, messages[: place + 1], tools)
        if not whole.startswith(turn):
            raise RewrittenAnswer(f"the chat template renders turn {place + 1} differently when later turns follow")
        start = len(prompt) if turn.startswith(prompt) else _shared(template, tokenizer, conversation, place, turn)
        _check_answer(messages[place], turn[start:], template.name)
        closing = template.turn_ends.after(messages[place])
        if last:
            whole += closing
        answers.append((start, len(turn) + (len(closing) if whole.startswith(closing, len(turn)) else 0)))
    for tool in tools or ():
        if str(tool["function"].get("name", "")) not in whole[: answers[0][0]]:
            raise BadExample(f"the chat template ({template.name}) does not render the tools")
    return Rendered(whole, tuple(answers))


def _length(conversation: Conversation) -> int:
    """Number of characters of a conversation.

    Raises:
        BadExample: it is too long for an example.
    """
    length = sum(len(message["content"]) for message in conversation.messages)
    if length > MAX_CONVERSATION_LENGTH:
        raise BadExample(f"it has {length:,} characters, expected at most {MAX_CONVERSATION_LENGTH:,}; split it")
    return length


def _check_repeats(conversation: Conversation) -> None:
    """Limit the text that is rendered again for each answer of a conversation.

    Raises:
        BadExample: the limit is exceeded.
    """
    turns, length = len(conversation.messages), _length(conversation)
    answers = sum(message["role"] == ANSWER for message in conversation.messages)
    if answers > 1 and (answers * turns > MAX_REPEATED_TURNS or answers * length > MAX_REPEATED_LENGTH):
        raise BadExample(
            f"it has {turns:,} turns and {length:,} characters, which this chat template writes again for each answer; "
            "split it into shorter conversations"
        )


def _by_markers(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, last_only: bool
) -> Rendered:
    """Ranges of the answers from the markers of LLF's templates; one that strips reasoning marks one at a time."""
    messages = conversation.messages
    if template.drops_earlier_reasoning and not last_only:
        asked = max(place for place, message in enumerate(messages) if message["role"] == "user")
        if any(message["role"] == ANSWER for message in messages[:asked]):
            raise RewrittenAnswer("the template removes earlier thinking")
    for message in messages:
        if not message["content"].isascii() and MARKERS.search(message["content"]):
            raise BadExample("its text has one of the private-use characters U+E001 to U+E003")
    marked = None
    if template.fast_renderer is not None and not conversation.tools and messages[-1]["role"] == ANSWER:
        marked = template.fast_renderer.render(messages)
    if marked is None:
        marked = template.render(tokenizer, messages, conversation.tools, markers=True)
    rendered = _parted(marked)
    return replace(rendered, answers=rendered.answers[-1:]) if last_only else rendered


def _parted(marked: str) -> Rendered:
    """Text and ranges of a text with markers."""
    # The start and end of an answer are tokenization boundaries too.
    parts = (
        marked.replace(ANSWER_START, BOUNDARY + ANSWER_START).replace(ANSWER_END, BOUNDARY + ANSWER_END).split(BOUNDARY)
    )
    place = len(parts[0])
    cuts: dict[int, None] = {}
    begins: list[int] = []
    ends: list[int] = []
    for number in range(1, len(parts)):
        part = parts[number]
        sign = part[:1]
        if sign in {ANSWER_START, ANSWER_END}:
            (begins if sign == ANSWER_START else ends).append(place)
            parts[number] = part = part[1:]
        cuts[place] = None
        place += len(part)
    return Rendered("".join(parts), tuple(zip(begins, ends, strict=True)), tuple(cuts))


def render_prompt(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Rendered:
    """Render a conversation up to the start of its next answer, for stages that let the model write it.

    Args:
        template: the template.
        tokenizer: for its special tokens.
        conversation: ends with a message that is not an answer.

    Returns:
        The text, without answers.

    Raises:
        BadExample: it is too long, or the template raises an error.
        DataError: the template exceeds its limits of steps or length.
        MemoryError: out of memory.
    """
    _length(conversation)
    text = template.render(
        tokenizer,
        conversation.messages,
        conversation.tools,
        add_generation_prompt=True,
        markers=bool(template.marked),
    )
    return _parted(text) if template.marked else Rendered(text, ())


def _by_generation_blocks(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, last_only: bool
) -> Rendered:
    """Ranges of the answers from the template's own `{% generation %}` blocks."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        (text,), (spans,) = _with_either_arguments(
            content_parts(conversation.messages),
            lambda given: render_jinja_template(
                [given],
                tools=list(conversation.tools) if conversation.tools else None,
                chat_template=template.jinja,
                return_assistant_tokens_mask=True,
                **tokenizer.special_tokens_map,
                **dict(template.options),
            ),
        )
    except Exception as error:  # noqa: BLE001 - what the text of a template raises is not known
        raise template_error(error) from None
    answers = _joined([(start, end) for start, end in spans if end > start])
    if not answers:
        raise BadExample("the chat template does not mark any generated text")
    if not last_only:
        _check_not_rewritten(template, tokenizer, conversation, text)
        return Rendered(text, answers)
    before = template.render(tokenizer, conversation.messages[:-1], conversation.tools)
    start = common_prefix_length(before, text)
    last = tuple(answer for answer in answers if answer[0] >= start)
    if not last:
        raise BadExample("the chat template does not mark the last response as generated text")
    return Rendered(text, last)


def _joined(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges without a gap between them as one, since a template may mark an answer and its end separately."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return tuple(found)


def _check_not_rewritten(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, whole: str
) -> None:
    """Check that answers are written as in generation, when no later turns follow.

    Raises:
        RewrittenAnswer: the template writes an answer differently once later turns follow.
        BadExample: the conversation is too long to be rendered for each answer.
    """
    _check_repeats(conversation)
    messages = conversation.messages
    for place, message in enumerate(messages[:-1]):
        if message["role"] == ANSWER:
            turn = template.render(tokenizer, messages[: place + 1], conversation.tools)
            if not whole.startswith(turn):
                raise RewrittenAnswer(f"the chat template renders turn {place + 1} differently when later turns follow")


def _shared(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int, turn: str
) -> int:
    """Start of an answer whose text does not begin with its generation prompt.

    Such a prompt may open a reasoning block that the rendered answer does not repeat. All text before it must be equal.
    """
    messages, tools = conversation.messages[:place], conversation.tools
    prompt = template.render(tokenizer, messages, tools, add_generation_prompt=True)
    before = template.render(tokenizer, messages, tools)
    start = common_prefix_length(prompt, turn)
    if start < len(before):
        raise BadExample(f"the chat template changes the text before turn {place + 1}")
    return start


def _check_answer(message: Message, rendered: str, template: str) -> None:
    """Check that the template writes the whole answer, apart from whitespace."""
    shown = "".join(rendered.split())
    content = PLACEHOLDER.sub("", message["content"]) if "parts" in message else message["content"]
    if "".join(content.split()) not in shown:
        begins = content.strip()[:SHOWN_CHARACTERS]
        raise BadExample(f"the chat template ({template}) drops a part of the response {begins!r}")
    for call in message.get("tool_calls", ()):
        if call["function"]["name"] not in shown:
            raise BadExample(f"the chat template ({template}) does not render the call of {call['function']['name']}")


def common_prefix_length(one: str, other: str) -> int:
    """Length of the common prefix of two strings in characters, by which rendered texts are compared.

    Args:
        one: a string.
        other: a string.
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def answer_suffix(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int
) -> str:
    """Text that the template writes after the words of an answer, such as `<|im_end|>` and a newline.

    Truncation keeps it, so that a shortened answer still ends. Found by adding a word to the answer: the common suffix
    of both texts, followed by the template's turn end for it, if any.

    Args:
        template: the template.
        tokenizer: for its special tokens.
        conversation: conversation with the answer.
        place: index of the answer among the messages.

    Raises:
        BadExample: the template raises an error.
        DataError: the template exceeds its limits of steps or length.
        MemoryError: out of memory.
    """
    text, other = _also_longer(template, tokenizer, conversation, place + 1)
    length = common_prefix_length(text[::-1], other[::-1])
    return text[len(text) - length :] + template.turn_ends.after(conversation.messages[place])


def _also_longer(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    end: int,
    *,
    add_generation_prompt: bool = False,
) -> tuple[str, str]:
    """The messages before `end` as text, and the same with one more word in the last one."""
    *before, last = conversation.messages[:end]
    text, other = (
        template.render(tokenizer, [*before, one], conversation.tools, add_generation_prompt=add_generation_prompt)
        for one in (last, _longer(last))
    )
    return text, other


def _longer(message: Message) -> Message:
    """The message with one more word."""
    longer = {**message, "content": message["content"] + MARK}
    if "parts" in message:
        longer["parts"] = [*message["parts"], {"type": "text", "text": MARK}]
    return longer


def accepts_parts(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer's own template takes lists of parts as content, as those of multimodal models do.

    Other templates raise an error for a list of parts, write its Python representation (`[{'type': 'text', …`), or
    nothing. For them media become placeholders in the text. A template that raises an error for strings too counts as
    one that takes lists.

    Args:
        template: the one that stands for the tokenizer's own, named "the model's own".
        tokenizer: tokenizer with the template.

    Raises:
        DataError: the template exceeds its limits of steps or length.
        MemoryError: out of memory.
    """
    message = {"role": "user", "content": MARK}
    try:
        text = template.render(tokenizer, [{**message, "parts": [{"type": "text", "text": MARK}]}])
    except BadExample:
        try:
            template.render(tokenizer, [message])
        except BadExample:
            return True
        return False
    return MARK in text and WRITTEN_LIST.search(text) is None


def media_placeholder(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, kind: str) -> str | None:
    """Placeholder that a tokenizer's own template writes for an image, video or audio.

    A named template, which takes strings only, needs it in its text: the processor replaces it with the media tokens.

    Args:
        template: the one that stands for the tokenizer's own, named "the model's own".
        tokenizer: tokenizer with the template.
        kind: `image`, `video` or `audio`.

    Returns:
        The placeholder; None if the template does not support this kind.

    Raises:
        DataError: the template exceeds its limits of steps or length.
        MemoryError: out of memory.
    """
    if not accepts_parts(template, tokenizer):
        return None
    mark = {"type": "text", "text": MARK}
    message = {"role": "user", "content": "", "parts": [mark, {"type": kind}, mark]}
    try:
        parts = template.render(tokenizer, [message]).split(MARK)
    except BadExample:
        return None
    return parts[1] if len(parts) == 3 and parts[1] else None  # noqa: PLR2004 - before, between, after


def answer_header(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int
) -> str:
    """Text that the template writes between the words of a question and its answer, such as `<|im_end|>` and a header.

    Truncation keeps it, so that the model sees where its answer begins. Found by adding a word to the question: the
    rest of the prompt after the common prefix of both prompts.

    Args:
        template: the template.
        tokenizer: for its special tokens.
        conversation: conversation with the answer.
        place: index of the answer among the messages.

    Raises:
        BadExample: the template raises an error.
        DataError: the template exceeds its limits of steps or length.
        MemoryError: out of memory.
    """
    prompt, other = _also_longer(template, tokenizer, conversation, place, add_generation_prompt=True)
    return prompt[common_prefix_length(prompt, other) :]
