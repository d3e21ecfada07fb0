"""Renders a conversation to text, and finds its answers in it by rendering its prefixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.data.errors import BadExample, DataError
from llf_core.data.formats.conversation import ANSWER, Message
from llf_core.data.templates import named_template, template_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.formats.conversation import Conversation

OWN = "the model's own"
SHOWN_CHARACTERS = 60
MARK = "\ue000"
"""A sign that no template writes (private use)."""


@dataclass(frozen=True)
class ChatTemplate:
    """How messages become text.

    Attributes:
        name: of a shipped template, or "the model's own".
        jinja: its text, as `tokenizer.apply_chat_template` takes it.
        end: the token that ends an answer; None where only the template itself knows.
        options: further variables of the template, such as `enable_thinking`.
    """

    name: str
    jinja: str
    end: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def carry(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Has a tokenizer that is saved bring this template along, so that chatting renders as training did."""
        if self.name != OWN:
            tokenizer.chat_template, tokenizer.eos_token = self.jinja, self.end

    def render(
        self,
        tokenizer: PreTrainedTokenizerBase,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of some messages.

        Raises:
            BadExample: the template refuses them, in its own words.
        """
        from jinja2.exceptions import TemplateError

        if not messages:
            return ""
        try:
            text: str = tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) if tools else None,
                chat_template=self.jinja,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **dict(self.options),
            )
        except (TemplateError, TypeError) as error:
            raise BadExample(f"the chat template cannot render it: {error}") from None
        return text


def choose_template(
    name: str | None, tokenizer: PreTrainedTokenizerBase, *, enable_thinking: bool | None = None
) -> ChatTemplate:
    """The tokenizer's own chat template unless another one is named.

    Args:
        name: `template` of the config.
        tokenizer: of the model that is trained.
        enable_thinking: passed on where the template asks for it.

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
            fitting = ", ".join(other for other in template_names() if _fits(other, tokenizer))
            raise DataError(
                f"The template {name} ends answers with {end}, which is no token of this tokenizer: "
                f"the model would never learn to stop. Templates that fit: {fitting or 'none'}."
            )
        return ChatTemplate(name, named.jinja, end)
    if not tokenizer.chat_template:
        raise DataError(
            "The tokenizer brings no chat template (a base model?). "
            "Set template, e.g. template: default for a base model, or take the model's instruct version."
        )
    jinja = tokenizer.get_chat_template()
    takes_thinking = enable_thinking is not None and "enable_thinking" in jinja
    return ChatTemplate(OWN, jinja, options=(("enable_thinking", enable_thinking),) if takes_thinking else ())


def _fits(name: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    end = named_template(name).end
    return end == "eos_token" or tokenizer.convert_tokens_to_ids(end) not in {None, tokenizer.unk_token_id}


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: all of it.
        answers: where the answers stand in it, `[start, end)` in characters: from the end of the generation prompt
            to the end of all that the template writes for the turn (the token that ends it, a newline after it).
    """

    text: str
    answers: tuple[tuple[int, int], ...]


def render_answers(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    *,
    last_only: bool = False,
) -> Rendered:
    """Renders a conversation and finds its answers.

    For the answer in turn i, the text up to the generation prompt (`messages[:i]`) and the text with the answer
    (`messages[:i + 1]`) are rendered; the answer is what follows their common beginning. Both must begin the text of
    the whole conversation, or else the loss would be taken on a context that the model never meets.

    Args:
        template: how to render.
        tokenizer: whose special tokens the template uses.
        conversation: ends with an answer.
        last_only: find only the last answer.

    Raises:
        BadExample: the template refuses the conversation, shows the beginning differently once later turns follow
            (as templates do that strip earlier thinking), or leaves out a part of an answer, a call, or the tools.
    """
    messages, tools = conversation.messages, conversation.tools
    whole = template.render(tokenizer, messages, tools)
    places = [place for place, message in enumerate(messages) if message["role"] == ANSWER]
    answers = []
    for place in places[-1:] if last_only else places:
        prompt = template.render(tokenizer, messages[:place], tools, add_generation_prompt=True)
        last = place == len(messages) - 1
        turn = whole if last else template.render(tokenizer, messages[: place + 1], tools)
        if not whole.startswith(turn):
            raise BadExample(
                f"the chat template writes turn {place + 1} differently once later turns follow (it may strip "
                "earlier thinking); mask_history: true trains its last answer alone"
            )
        start = len(prompt) if turn.startswith(prompt) else _shared(template, tokenizer, conversation, place, turn)
        _check_said(messages[place], turn[start:], template.name)
        answers.append((start, len(turn)))
    for tool in tools or ():
        if str(tool["function"].get("name", "")) not in whole[: answers[0][0]]:
            raise BadExample(f"the chat template ({template.name}) does not show the tools")
    return Rendered(whole, tuple(answers))


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
    if "".join(message["content"].split()) not in shown:
        begins = message["content"].strip()[:SHOWN_CHARACTERS]
        raise BadExample(f"the chat template ({template}) leaves out a part of the answer {begins!r}")
    for call in message.get("tool_calls", ()):
        if call["function"]["name"] not in shown:
            raise BadExample(f"the chat template ({template}) does not show the call of {call['function']['name']}")


def shared_length(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


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
    longer = {**question, "content": question["content"] + MARK}
    prompt, other = (
        template.render(tokenizer, [*before, last], conversation.tools, add_generation_prompt=True)
        for last in (question, longer)
    )
    return prompt[shared_length(prompt, other) :]
