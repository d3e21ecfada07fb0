"""Renders a conversation to text, and finds its answers in it: by signs, by generation marks, or by its prefixes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llf_core.config.chat_templates import template_names
from llf_core.config.did_you_mean import listed
from llf_core.data.errors import BadExample, DataError
from llf_core.data.formats.conversation import ANSWER, Message
from llf_core.data.media import PLACE, in_parts
from llf_core.data.rendered import Rendered
from llf_core.data.templates import BEGINS, ENDS, JOINT, Plain, named_template, render
from llf_core.models.bounded_templates import bound_templates, endless_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.formats.conversation import Conversation

OWN = "the model's own"
NONE = "none, since plain texts need none"
SHOWN_CHARACTERS = 60
MARK = "\ue000"
"""A sign that no template writes (private use)."""
SIGNS = re.compile(f"([{JOINT}{BEGINS}{ENDS}])")
GENERATION = re.compile(r"\{%-?\s*generation\b")


LONGEST_REFUSAL = 200
WRITTEN_LIST = re.compile(r"""['"]type['"]\s*:""")
LONGEST_CONVERSATION = 40_000_000
"""Characters of a conversation: ten million tokens, more than any model learns from at once."""
MOST_REPEATED_TURNS, MOST_REPEATED = 1_000_000, 1_000_000_000
"""Turns and characters that are rendered where each answer of a conversation is found by its prefixes."""


def refused(error: Exception) -> BadExample:
    """Why a template does not render a conversation, in its own words.

    Raises:
        DataError: it does not end, or fills the memory, so no record may be tried.
        MemoryError: it was that, which no record is to blame for.
    """
    from jinja2.exceptions import TemplateError

    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, endless_error()):
        raise DataError(
            f"The chat template that comes with the tokenizer does not end as one should: {error}. Expected a template "
            "that writes a conversation in some thousand steps: take the model from where it was published, or set "
            "template."
        )
    said = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
    return BadExample(f"the chat template cannot render it: {said[:LONGEST_REFUSAL]}")


class Rewritten(BadExample):
    """A template that writes an answer differently once later turns follow, as those do that strip thoughts."""


@dataclass(frozen=True)
class ChatTemplate:
    """How messages become text.

    Attributes:
        name: of a shipped template, "the model's own", or that there is none.
        jinja: its text, as `tokenizer.apply_chat_template` takes it.
        end: the token that ends an answer; None where only the template itself knows.
        options: further variables of the template, such as `enable_thinking`.
        marked: a text that renders the same with signs in it, of a template that ships with LLF.
        stop: further tokens that a generation stops at.
        tokens: the tokenizer's special tokens by name, for a template that ships with LLF.
        plain: renders what has neither functions nor thoughts, faster; the same text.
    """

    name: str
    jinja: str
    end: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    marked: str = ""
    stop: tuple[str, ...] = ()
    tokens: tuple[tuple[str, str], ...] = ()
    plain: Plain | None = None

    @cached_property
    def forgets(self) -> bool:
        """Whether a template of ours leaves out the thoughts of earlier answers."""
        return "preserve_thinking" in self.jinja and not dict(self.options).get("preserve_thinking")

    def carry(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Has a tokenizer that is saved bring this template along, so that chatting renders as training did."""
        if self.name not in {OWN, NONE}:
            tokenizer.chat_template, tokenizer.eos_token = self.jinja, self.end

    def end_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The tokens that an answer ends with and that a generation stops at; none of the model's own template."""
        found = (tokenizer.convert_tokens_to_ids(one) for one in (self.end, *self.stop) if one)
        return [one for one in found if one not in {None, tokenizer.unk_token_id}]

    def render(
        self,
        tokenizer: PreTrainedTokenizerBase,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
        signs: bool = False,
    ) -> str:
        """The text of some messages.

        Args:
            tokenizer: whose special tokens the template uses.
            messages: what is said.
            tools: functions that may be called, as JSON schemas.
            add_generation_prompt: end with what opens an answer.
            signs: leave the signs of `llf_core.data.templates` in the text.

        Raises:
            BadExample: the template refuses them, in its own words.
        """
        if not messages:
            return ""
        try:
            if self.marked:
                variables = {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
                variables |= dict(self.tokens) | dict(self.options)
                return render(self.marked if signs else self.jinja, variables)
            text: str = tokenizer.apply_chat_template(
                in_parts(messages),
                tools=list(tools) if tools else None,
                chat_template=self.jinja,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **dict(self.options),
            )
            text.encode()
        except Exception as error:  # noqa: BLE001 - what the text of a template raises is not known
            raise refused(error) from None
        return text


def choose_template(
    name: str | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    enable_thinking: bool | None = None,
    preserve_thinking: bool = False,
    tool_format: str | None = None,
) -> ChatTemplate:
    """The tokenizer's own chat template unless another one is named.

    Args:
        name: `template` of the config.
        tokenizer: of the model that is trained.
        enable_thinking: passed on where the template asks for it.
        preserve_thinking: the same; keeps the thoughts of earlier answers.
        tool_format: how a named template offers and calls functions; None as its models do.

    Raises:
        DataError: an unknown name, a tokenizer without a chat template, or one that lacks the token that ends an
            answer, so that a model trained with the template would never stop.
    """
    if name is not None:
        named = named_template(name)
        end = tokenizer.eos_token if named.end == "eos_token" else named.end
        if end is None:
            raise DataError(
                f"The template {name} ends answers with the end-of-sequence token, and the tokenizer has none."
            )
        if tokenizer.convert_tokens_to_ids(end) in {None, tokenizer.unk_token_id} and end != tokenizer.unk_token:
            fitting = sorted((one for one in template_names() if _fits(one, tokenizer)), key=_made_of_text)
            raise DataError(
                f"The template {name} ends answers with {end}, which is not a token of this tokenizer: "
                f"the model would never learn to stop. Templates that fit: {listed(fitting)}."
            )
        jinja = named.jinja(space=_puts_a_blank(tokenizer), tools=tool_format)
        options = _options(jinja, enable_thinking, preserve_thinking)
        tokens = tuple((key, str(value)) for key, value in tokenizer.special_tokens_map.items())
        marked, plain = named.marked(tools=tool_format), Plain.of(name, dict(tokens))
        return ChatTemplate(name, jinja, end, options, marked, named.stop, tokens, plain)
    bound_templates()
    if not tokenizer.chat_template:
        raise DataError(
            "The tokenizer brings no chat template (a base model?). "
            "Set template, e.g. template: default for a base model, or take the model's instruct version."
        )
    jinja = tokenizer.get_chat_template()
    return ChatTemplate(OWN, jinja, options=_options(jinja, enable_thinking, preserve_thinking))


def _options(jinja: str, enable_thinking: bool | None, preserve_thinking: bool) -> tuple[tuple[str, Any], ...]:
    """The variables that a template asks for; one that it does not know would only change the cache's key."""
    asked = {"enable_thinking": enable_thinking, "preserve_thinking": preserve_thinking or None}
    return tuple((name, value) for name, value in asked.items() if value is not None and name in jinja)


def _puts_a_blank(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it reads the first word of a text as if a blank stood before it, as SentencePiece does."""
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(ids) and str(tokenizer.convert_ids_to_tokens(ids)[0]).startswith("▁")


def _fits(name: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    named = named_template(name)
    ends = set() if named.end == "eos_token" else {named.end}
    return all(
        tokenizer.convert_tokens_to_ids(one) not in {None, tokenizer.unk_token_id} for one in named.tokens | ends
    )


def _made_of_text(name: str) -> bool:
    """Whether a template writes no token of its own, so that it fits every tokenizer."""
    return not named_template(name).tokens


def render_all(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    *,
    last_only: bool = False,
) -> Iterator[tuple[Conversation, Rendered]]:
    """The examples of a conversation: one, unless the template writes its answers differently once others follow.

    Templates of thinking models leave out the thoughts of earlier answers. Then each answer is an example of its own,
    after the context that the model meets when it gives it.

    Args:
        template: how to render.
        tokenizer: whose special tokens the template uses.
        conversation: ends with an answer.
        last_only: learn the last answer only.

    Yields:
        What is said, as far as the example goes, and its text.

    Raises:
        BadExample: see `render_answers`.
    """
    try:
        yield conversation, render_answers(template, tokenizer, conversation, last_only=last_only)
    except Rewritten:
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
    """Renders a conversation and finds its answers.

    A template of our own renders signs where answers begin and end; one with `{% generation %}` marks tells itself
    what is learned. Of all others, prefixes are rendered: for the answer in turn i, the text up to the generation
    prompt (`messages[:i]`) and the text with the answer (`messages[:i + 1]`); the answer is what follows their common
    beginning. Both must begin the text of the whole conversation, or else the loss would be taken on a context that
    the model never meets.

    Args:
        template: how to render.
        tokenizer: whose special tokens the template uses.
        conversation: ends with an answer.
        last_only: find only the last answer.

    Raises:
        Rewritten: it shows an answer differently once later turns follow (as templates do that strip earlier
            thinking).
        BadExample: it is too long, the template refuses it, or leaves out a part of an answer, a call, or the tools.
    """
    _length(conversation)
    if template.marked:
        return _by_signs(template, tokenizer, conversation, last_only=last_only)
    messages, tools = conversation.messages, conversation.tools
    if GENERATION.search(template.jinja):
        return _by_marks(template, tokenizer, conversation, last_only=last_only)
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
            raise Rewritten(f"the chat template writes turn {place + 1} differently once later turns follow")
        start = len(prompt) if turn.startswith(prompt) else _shared(template, tokenizer, conversation, place, turn)
        _check_said(messages[place], turn[start:], template.name)
        answers.append((start, len(turn)))
    for tool in tools or ():
        if str(tool["function"].get("name", "")) not in whole[: answers[0][0]]:
            raise BadExample(f"the chat template ({template.name}) does not show the tools")
    return Rendered(whole, tuple(answers))


def _length(conversation: Conversation) -> int:
    """Characters of what is said.

    Raises:
        BadExample: they are too many for one example.
    """
    length = sum(len(message["content"]) for message in conversation.messages)
    if length > LONGEST_CONVERSATION:
        raise BadExample(f"it has {length:,} characters, expected at most {LONGEST_CONVERSATION:,}; split it")
    return length


def _check_repeats(conversation: Conversation) -> None:
    """What is to be rendered again for each of its answers is no more than a machine does in seconds.

    Raises:
        BadExample: it is more.
    """
    turns, length = len(conversation.messages), _length(conversation)
    answers = sum(message["role"] == ANSWER for message in conversation.messages)
    if answers > 1 and (answers * turns > MOST_REPEATED_TURNS or answers * length > MOST_REPEATED):
        raise BadExample(
            f"it has {turns:,} turns and {length:,} characters, which this chat template writes again for each answer; "
            "split it into shorter conversations"
        )


def _by_signs(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, last_only: bool
) -> Rendered:
    """What a template of our own renders; a thinking one writes one answer in full, so it takes one at a time."""
    messages = conversation.messages
    if template.forgets and not last_only:
        asked = max(place for place, message in enumerate(messages) if message["role"] == "user")
        if any(message["role"] == ANSWER for message in messages[:asked]):
            raise Rewritten("the template leaves out earlier thoughts")
    for message in messages:
        if not message["content"].isascii() and SIGNS.search(message["content"]):
            raise BadExample("its text has one of the private-use characters U+E001 to U+E003")
    marked = None
    if template.plain is not None and not conversation.tools and messages[-1]["role"] == ANSWER:
        marked = template.plain.render(messages)
    if marked is None:
        marked = template.render(tokenizer, messages, conversation.tools, signs=True)
    rendered = _parted(marked)
    return replace(rendered, answers=rendered.answers[-1:]) if last_only else rendered


def _parted(marked: str) -> Rendered:
    """What a text with signs in it says."""
    # Where an answer begins or ends, the tokenizer starts anew too.
    parts = marked.replace(BEGINS, JOINT + BEGINS).replace(ENDS, JOINT + ENDS).split(JOINT)
    place = len(parts[0])
    cuts: dict[int, None] = {}
    begins: list[int] = []
    ends: list[int] = []
    for number in range(1, len(parts)):
        part = parts[number]
        sign = part[:1]
        if sign in {BEGINS, ENDS}:
            (begins if sign == BEGINS else ends).append(place)
            parts[number] = part = part[1:]
        cuts[place] = None
        place += len(part)
    return Rendered("".join(parts), tuple(zip(begins, ends, strict=True)), tuple(cuts))


def render_prompt(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Rendered:
    """Renders a conversation up to where its next answer begins.

    Raises:
        BadExample: it is too long, or the template refuses it.
    """
    _length(conversation)
    text = template.render(
        tokenizer,
        conversation.messages,
        conversation.tools,
        add_generation_prompt=True,
        signs=bool(template.marked),
    )
    return _parted(text) if template.marked else Rendered(text, ())


def _by_marks(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, last_only: bool
) -> Rendered:
    """What stands between a template's own `{% generation %}` marks."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        (text,), (spans,) = render_jinja_template(
            [in_parts(conversation.messages)],
            tools=list(conversation.tools) if conversation.tools else None,
            chat_template=template.jinja,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
            **dict(template.options),
        )
    except Exception as error:  # noqa: BLE001 - what the text of a template raises is not known
        raise refused(error) from None
    answers = tuple((start, end) for start, end in spans if end > start)
    if not answers:
        raise BadExample("the chat template marks nothing of it as generated")
    return Rendered(text, answers[-1:] if last_only else answers)


def _shared(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int, turn: str
) -> int:
    """Where an answer starts whose generation prompt does not begin it word for word.

    Such a prompt may open a thought that the rendered answer does not repeat; all before it must be the same.
    """
    messages, tools = conversation.messages[:place], conversation.tools
    prompt = template.render(tokenizer, messages, tools, add_generation_prompt=True)
    before = template.render(tokenizer, messages, tools)
    start = shared_length(prompt, turn)
    if start < len(before):
        raise BadExample(f"the chat template changes what stands before turn {place + 1}")
    return start


def _check_said(message: Message, said: str, template: str) -> None:
    """The template must show the answer whole, blanks aside."""
    shown = "".join(said.split())
    content = PLACE.sub("", message["content"]) if "parts" in message else message["content"]
    if "".join(content.split()) not in shown:
        begins = content.strip()[:SHOWN_CHARACTERS]
        raise BadExample(f"the chat template ({template}) leaves out a part of the answer {begins!r}")
    for call in message.get("tool_calls", ()):
        if call["function"]["name"] not in shown:
            raise BadExample(f"the chat template ({template}) does not show the call of {call['function']['name']}")


def shared_length(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def closing_of(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int
) -> str:
    """What the template writes after the words of an answer: `<|im_end|>` and a newline.

    Found by saying one word more: from there on the two texts are the same.

    Args:
        template: how to render.
        tokenizer: whose special tokens the template uses.
        conversation: that the answer belongs to.
        place: of the answer among the messages.

    Raises:
        BadExample: the template refuses.
    """
    *before, answer = conversation.messages[: place + 1]
    text, other = (
        template.render(tokenizer, [*before, last], conversation.tools) for last in (answer, _longer(answer))
    )
    length = shared_length(text[::-1], other[::-1])
    return text[len(text) - length :]


def _longer(message: Message) -> Message:
    """A message that says one word more."""
    longer = {**message, "content": message["content"] + MARK}
    if "parts" in message:
        longer["parts"] = [*message["parts"], {"type": "text", "text": MARK}]
    return longer


def takes_parts(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer's own template takes messages in parts, as those of models that see do, or texts alone.

    One that takes texts alone raises an error for a list of parts, or writes it as Python does: `[{'type': 'text', …`.

    Args:
        template: "the model's own".
        tokenizer: that brings it.
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
    return WRITTEN_LIST.search(text) is None


def sign_of(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, kind: str) -> str | None:
    """What a tokenizer's own template writes where a picture, a video or a sound stands.

    Args:
        template: "the model's own".
        tokenizer: that brings it.
        kind: `image`, `video` or `audio`.

    Returns:
        None where the template takes none.
    """
    if not takes_parts(template, tokenizer):
        return None
    mark = {"type": "text", "text": MARK}
    message = {"role": "user", "content": "", "parts": [mark, {"type": kind}, mark]}
    try:
        parts = template.render(tokenizer, [message]).split(MARK)
    except BadExample:
        return None
    return parts[1] if len(parts) == 3 and parts[1] else None  # noqa: PLR2004 - before, between, after


def opening_of(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int
) -> str:
    """What the template writes between the words of a question and its answer: `<|im_end|>`, the answer's header.

    Found by saying one word more: up to there the two prompts are the same.

    Args:
        template: how to render.
        tokenizer: whose special tokens the template uses.
        conversation: that the answer belongs to.
        place: of the answer among the messages.

    Raises:
        BadExample: the template refuses.
    """
    *before, question = conversation.messages[:place]
    longer = _longer(question)
    prompt, other = (
        template.render(tokenizer, [*before, last], conversation.tools, add_generation_prompt=True)
        for last in (question, longer)
    )
    return prompt[shared_length(prompt, other) :]
