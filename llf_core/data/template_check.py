"""Checks a chat template with sentinels: what it renders, whether it rewrites earlier turns, whether it ends answers.

A sentinel is a word that occurs nowhere else. A field whose sentinel is missing in the rendered text is never rendered.

Finds the text that a chat template writes around words and media, by rendering a message with a mark in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.data.answer_ranges import render_all
from llf_core.data.chat_template import choose_template, template_error
from llf_core.data.common_prefix import common_prefix_length
from llf_core.data.conversation import ANSWER, PLAIN, REASONING_FIELDS, Conversation, Message
from llf_core.data.errors import BadExample
from llf_core.data.media import content_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.chat_template import ChatTemplate

SENTINEL = "Sentinel7f3a"
QUESTION, REPLY, RESULT, INSTRUCTION = "Question41", "Reply58", "Result93", "Instruction17"

SHOWN_BEFORE, SHOWN_AFTER = 20, 40
"""Characters shown around the first difference of two texts."""
FUNCTION = "function_6b"
RENDERED, DROPPED, FAILS = "rendered", "dropped", "fails"
KEPT, REWRITTEN = "kept", "rewritten"

Field = tuple[str, str]
"""Role of a message and key; the role is empty for a key of the conversation."""
TOOLS: Field = ("", "tools")
SYSTEM: Field = ("system", "content")
CALLS: Field = (ANSWER, "tool_calls")
IN_CONTENT = f"<think>\n{SENTINEL}\n</think>\n\n{REPLY}"
DAYS = ("2031-02-03", "2044-11-17")


class FieldCheck(NamedTuple):
    """How a chat template handles a field.

    Attributes:
        role: role of the messages that have it; empty for `tools`.
        state: `rendered`, `dropped`, or `fails` if the template raises an error.
        reason: the template's error; else empty.
        rename: field with the same meaning that the template renders; empty if there is none, or no need.
    """

    role: str
    name: str
    state: str
    reason: str = ""
    rename: str = ""

    def matters(self) -> bool:
        """Whether a model should see it, unlike an id or a weight: the system prompt, tools, calls and reasoning."""
        return (self.role, self.name) in {TOOLS, SYSTEM, CALLS} or self.name in REASONING_FIELDS

    def text(self, template: str) -> str:
        """Say what happens to the field, and what to do if it matters, in one to three sentences; empty if rendered."""
        if self.state == RENDERED:
            return ""
        what = {TOOLS: "the tools", SYSTEM: "the system prompt"}.get(
            (self.role, self.name), f"the field `{self.name}` of {self.role} messages"
        )
        if self.state == FAILS:
            said = f"The chat template ({template}) raises an error for {what}"
            return f"{said}, so records that have it are dropped: {self.reason}."
        said = f"The chat template ({template}) never renders {what}"
        if not self.matters():
            return f"{said}."
        lost = f"{said}, so the model does not see it."
        if self.rename:
            return f'{lost} It renders `{self.rename}`: set `rename_fields` to {{"{self.name}": "{self.rename}"}}.'
        if self.name in REASONING_FIELDS:
            return f"{lost} It renders no field with reasoning. Choose a template that does."
        return f"{lost} Choose a template that does."


@dataclass(frozen=True)
class TemplateCheck:
    """Result of `template_check`.

    Attributes:
        prefixes: for each kind of conversation (`plain`, `system`, `tools`, `reasoning`), whether rendering it up to a
            turn is a prefix of rendering it further: `kept`, `rewritten`, or `fails`.
        stop: special token that ends the last answer within the loss; empty if there is none; None if the template
            cannot be checked.
        varies_by_day: whether it writes the current date.
        object_arguments: whether it renders calls whose arguments are objects; None if it renders no calls.
    """

    fields: tuple[FieldCheck, ...]
    prefixes: dict[str, str]
    stop: str | None
    varies_by_day: bool
    object_arguments: bool | None

    def warnings(self, template: str) -> list[str]:
        """Sentences about what is lost in training: unrendered fields that matter, and a missing stop token."""
        found = [one.text(template) for one in self.fields if one.matters() and one.state != RENDERED]
        if self.stop == "":
            found.append(
                f"The chat template ({template}) ends responses without a special token, or leaves it out of the loss, "
                "so the model does not learn to stop. Set `template` to one that ends responses with a token of this "
                "tokenizer."
            )
        return found

    def notes(self, template: str) -> list[str]:
        """Sentences about what needs no action, for a person who looks at the data."""
        others = [f"`{one.name}`" for one in self.fields if not one.matters() and one.state == DROPPED]
        found = [f"Fields that the chat template ({template}) never renders: {', '.join(others)}."] if others else []
        if self.varies_by_day:
            found.append(
                f"The chat template ({template}) writes the current date into the prompt: the same data gives other "
                "tokens on another day."
            )
        return found


def fields_of(conversation: Conversation) -> Iterator[Field]:
    """Role and key of the fields of a conversation beyond role and content that contain a text, a list or an object.

    `("", "tools")` if it has tools, `("system", "content")` if it has a system prompt.
    """
    messages = conversation.messages
    if conversation.tools:
        yield TOOLS
    if messages[0]["role"] == "system":
        yield SYSTEM
    for message in messages if conversation.rejected is None else (*messages, conversation.rejected):
        if len(message) > PLAIN:
            for name, value in message.items():
                if name not in {"role", "content", "parts"} and value and isinstance(value, str | list | dict):
                    yield message["role"], name


def template_check(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    fields: Iterable[Field] = (),
    *,
    as_parts: bool = False,
) -> TemplateCheck:
    """Check a chat template by rendering conversations of sentinels with it.

    Args:
        fields: fields of the data, as from `fields_of`.
        as_parts: whether contents are lists of parts, as templates of multimodal models take them.
    """
    probe = _Probe(template, tokenizer, as_parts)
    return TemplateCheck(
        tuple(probe.field(*one) for one in sorted(set(fields))),
        {kind: probe.prefix(turns) for kind, turns in _conversations(probe).items()},
        probe.stop(),
        probe.varies_by_day(),
        probe.object_arguments(),
    )


def difference_from_own(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> str:
    """Describe the first difference of a named template from the model's own, without or with a system prompt.

    Empty if there is none, or one of the two raises an error for such a conversation.
    """
    thinking = dict(template.options).get("enable_thinking")
    own = choose_template(None, tokenizer, enable_thinking=thinking)
    plain = [_user(), _reply(), _user(), _reply()]
    for messages in (plain, [{"role": "system", "content": INSTRUCTION}, *plain]):
        try:
            ours, theirs = (one.render(tokenizer, messages) for one in (template, own))
        except BadExample:
            continue
        if ours != theirs:
            start = common_prefix_length(ours, theirs)
            mine, other = (text[max(0, start - SHOWN_BEFORE) : start + SHOWN_AFTER] for text in (ours, theirs))
            return (
                f"The template {template.name} writes a conversation otherwise than the tokenizer's own: {mine!r}, "
                f"where that has {other!r}. Without `template` the tokenizer's own is used."
            )
    return ""


def _user(content: str = QUESTION) -> Message:
    return {"role": "user", "content": content}


def _reply(content: str = REPLY, **fields: object) -> Message:
    return {"role": ANSWER, "content": content, **fields}


def _call(arguments: object) -> dict[str, Any]:
    return {"id": "call00001", "type": "function", "function": {"name": FUNCTION, "arguments": arguments}}


def _calling(**fields: object) -> list[Message]:
    call = _call({"place": SENTINEL} if not fields else {"place": "x"})
    result = {"role": "tool", "content": RESULT, "name": FUNCTION, "tool_call_id": call["id"]}
    return [_reply("", tool_calls=[call], **fields), result]


def _tool(description: str = "Looks up a place.") -> dict[str, object]:
    place = {"type": "string", "description": "A place."}
    parameters = {"type": "object", "properties": {"place": place}, "required": ["place"]}
    return {
        "type": "function",
        "function": {"name": FUNCTION, "description": description, "parameters": parameters},
    }


def _conversations(probe: _Probe) -> dict[str, list[Message]]:
    """Conversations by kind, whose turns a template should not rewrite once later turns follow."""
    shown = next((name for name in REASONING_FIELDS if probe.field(ANSWER, name).state == RENDERED), None)
    plain = [_user(), _reply(), _user(), _reply()]
    thought = {"content": IN_CONTENT} if shown is None else {shown: SENTINEL}
    return {
        "plain": plain,
        "system": [{"role": "system", "content": INSTRUCTION}, *plain],
        "tools": [_user(), *_calling(), _reply(), *plain],
        "reasoning": [_user(), _reply(**thought), *plain],
    }


@dataclass(frozen=True)
class _Probe:
    """Renders conversations of sentinels."""

    template: ChatTemplate
    tokenizer: PreTrainedTokenizerBase
    as_parts: bool

    def render(self, messages: list[Message], *, tools: list[dict[str, Any]] | None = None) -> str:
        return self.template.render(self.tokenizer, self.given(messages), tools)

    def given(self, messages: list[Message]) -> list[Message]:
        if not self.as_parts:
            return messages
        return [one | {"parts": [{"type": "text", "text": one["content"]}]} for one in messages]

    def field(self, role: str, name: str) -> FieldCheck:
        state, reason = self.state(role, name)
        rename = ""
        if state == DROPPED and role == ANSWER and name in REASONING_FIELDS:
            others = (one for one in REASONING_FIELDS if one != name)
            rename = next((one for one in others if self.state(role, one)[0] == RENDERED), "")
        return FieldCheck(role, name, state, reason, rename)

    def state(self, role: str, name: str) -> tuple[str, str]:
        """Whether a field is rendered in any of the conversations that can have it; else why not."""
        worked, reason = False, ""
        for messages, tools, expected in _with_field(role, name):
            try:
                text = self.render(messages, tools=tools)
            except BadExample as error:
                reason = reason or str(error)
                continue
            if all(word in text for word in expected):
                return RENDERED, ""
            worked = True
        return (DROPPED, "") if worked else (FAILS, reason)

    def prefix(self, messages: list[Message]) -> str:
        tools = [_tool()] if any("tool_calls" in message for message in messages) else None
        try:
            whole = self.render(messages, tools=tools)
            starts = [self.render(messages[:count], tools=tools) for count in range(2, len(messages))]
        except BadExample:
            return FAILS
        return KEPT if all(whole.startswith(one) for one in starts) else REWRITTEN

    def stop(self) -> str | None:
        """Special token at the end of the trained range of the last answer, apart from whitespace."""
        conversation = Conversation(tuple(self.given([_user(), _reply(), _user(), _reply()])))
        try:
            *_, (_, rendered) = render_all(self.template, self.tokenizer, conversation)
        except BadExample:
            return None
        end = rendered.text[slice(*rendered.answers[-1])].rpartition(REPLY)[2].strip()
        known = {str(token) for token in self.tokenizer.added_tokens_decoder.values()} | {self.tokenizer.eos_token}
        return next((one for one in known if one and end.endswith(one)), "")

    def object_arguments(self) -> bool | None:
        if self.state(*CALLS)[0] != RENDERED:
            return None
        messages = [_user(), *_calling(), _reply()]
        try:
            self.tokenizer.apply_chat_template(
                content_parts(self.given(messages)),
                tools=[_tool()],
                chat_template=self.template.jinja,
                tokenize=False,
            )
        except Exception as error:
            if isinstance(template_error(error), BadExample):
                return False
            raise
        return True

    def varies_by_day(self) -> bool:
        if "strftime_now" not in self.template.jinja:
            return False
        texts = []
        for day in DAYS:
            clock = f"{{%- macro strftime_now(format) -%}}{day}{{%- endmacro -%}}"
            dated = replace(self.template, jinja=clock + self.template.jinja)
            try:
                texts.append(replace(self, template=dated).render([_user(), _reply()]))
            except BadExample:
                return True  # it calculates with the date
        return texts[0] != texts[1]


def _with_field(
    role: str, name: str
) -> Iterator[tuple[list[Message], list[dict[str, object]] | None, tuple[str, ...]]]:
    """Conversations that have a field: messages, tools, and the words that must occur in the rendered text."""
    if (role, name) == TOOLS:
        yield [_user(), _reply()], [_tool(SENTINEL)], (FUNCTION, SENTINEL)
    elif (role, name) == CALLS:
        yield [_user(), *_calling(), _reply()], [_tool()], (FUNCTION, SENTINEL)
        yield [_user(), *_calling(), _reply()], None, (FUNCTION, SENTINEL)
    elif role == "system":
        yield [{"role": "system", "content": REPLY, name: SENTINEL}, _user(), _reply()], None, (SENTINEL,)
    elif role == "user":
        yield [{**_user(), name: SENTINEL}, _reply()], None, (SENTINEL,)
    elif role == "tool":
        answer, result = _calling()
        answer = _reply("", tool_calls=[_call({"place": "x"})])
        yield [_user(), answer, {**result, name: SENTINEL}, _reply()], [_tool()], (SENTINEL,)
    else:
        yield [_user(), _reply(**{name: SENTINEL})], None, (SENTINEL,)
        yield [_user(), *_calling(**{name: SENTINEL}), _reply()], [_tool()], (SENTINEL,)


MARK = "\ue000"
"""A character that no template writes (private use area)."""
WRITTEN_LIST = re.compile(r"""['"]type['"]\s*:""")


def answer_suffix(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int
) -> str:
    """Text that the template writes after the words of an answer, such as `<|im_end|>` and a newline.

    Found by adding a word to the answer: the common suffix of both texts, followed by the template's turn end.
    """
    text, other = _also_longer(template, tokenizer, conversation, place + 1)
    length = common_prefix_length(text[::-1], other[::-1])
    return text[len(text) - length :] + template.turn_ends.after(conversation.messages[place])


def answer_header(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, place: int
) -> str:
    """Text that the template writes between the words of a question and its answer, such as `<|im_end|>` and a header.

    Found by adding a word to the question: the rest of the prompt after the common prefix of both prompts.
    """
    prompt, other = _also_longer(template, tokenizer, conversation, place, add_generation_prompt=True)
    return prompt[common_prefix_length(prompt, other) :]


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
    longer = {**message, "content": message["content"] + MARK}
    if "parts" in message:
        longer["parts"] = [*message["parts"], {"type": "text", "text": MARK}]
    return longer


def accepts_parts(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer's own template takes lists of parts as content, as those of multimodal models do.

    Others raise an error, write the list's Python representation (`[{'type': 'text', …`), or nothing.
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
    """Placeholder that a tokenizer's own template writes for an image, video or audio; None if unsupported."""
    if not accepts_parts(template, tokenizer):
        return None
    mark = {"type": "text", "text": MARK}
    message = {"role": "user", "content": "", "parts": [mark, {"type": kind}, mark]}
    try:
        parts = template.render(tokenizer, [message]).split(MARK)
    except BadExample:
        return None
    return parts[1] if len(parts) == 3 and parts[1] else None  # noqa: PLR2004 - before, between, after
