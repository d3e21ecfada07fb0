"""The common representation of all data sets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.data.errors import BadExample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.config.declaration import DataKind

Message = dict[str, Any]
PLAIN = 2  # keys of a message that says who and what, and no more
ANSWER = "assistant"
LONGEST_SHOWN = 60
"""Characters of a value that a reason repeats."""


# What a data set can hold.
ANSWERS: DataKind = "answers"
PAIRS: DataKind = "pairs"
UNPAIRED: DataKind = "unpaired_preferences"
PROMPTS: DataKind = "prompts"
TEXTS: DataKind = "texts"
DATA_KINDS: Mapping[DataKind, str] = {
    ANSWERS: "conversations with responses",
    PAIRS: "preference pairs (chosen, rejected)",
    UNPAIRED: "responses that are labelled good or bad",
    PROMPTS: "prompts without a response",
    TEXTS: "plain text",
}
# How the reasons begin for which a record without an answer is dropped.
NO_ANSWER, MISSING, UNENDED = "a response is empty", "the response is missing", "it ends with the "
UNANSWERED = (NO_ANSWER, MISSING, UNENDED)


class Medium(NamedTuple):
    """An image, video or audio clip.

    Attributes:
        kind: `image`, `video` or `audio`.
        value: the path of its file, or its bytes as a `data:` address.
    """

    kind: str
    value: str


@dataclass(frozen=True)
class Conversation:
    """A conversation: messages, tools, and label or rejected response.

    Attributes:
        messages: `{"role", "content"}` each, roles `system` (first only), `user`, `assistant`, `tool`; an
            assistant's may carry `tool_calls`. The last one is an assistant's; of prompts it is not; of plain text it
            is one message of role `text`.
        tools: JSON schemas of the functions that may be called, or None.
        rejected: of a preference pair, the answer that is worse than the last message.
        good: of a judged answer, whether it is.
        media: pictures, videos and sounds, in the order in which the messages name them.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None
    rejected: Message | None = None
    good: bool | None = None
    media: tuple[Medium, ...] = ()

    @property
    def kind(self) -> DataKind:
        """One of `DATA_KINDS`."""
        if self.rejected is not None:
            return PAIRS
        if self.good is not None:
            return UNPAIRED
        return {ANSWER: ANSWERS, "text": TEXTS}.get(self.messages[-1]["role"], PROMPTS)

    def canonical(self) -> bytes:
        """Canonical serialization: equal for equal conversations, whatever their file format.

        Raises:
            BadExample: its text is no Unicode (half of a surrogate pair), so no tokenizer can read it; it is nested too
                deeply.
        """
        if self.tools is None and self.kind == ANSWERS and all(len(message) == PLAIN for message in self.messages):
            text = "".join(f"{one['role']} {len(one['content'])}:{one['content']}" for one in self.messages)
        else:
            more: dict[str, object] = {"tools": self.tools, "rejected": self.rejected, "good": self.good}
            more |= {"media": self.media} if self.media else {}
            value = {"messages": self.messages} | more
            try:
                text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
            except RecursionError:
                raise BadExample("it is nested too deeply") from None
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise BadExample(f"its text is not valid Unicode ({text[error.start : error.end]!r})") from None


def checked(
    messages: list[Message],
    tools: tuple[dict[str, Any], ...] | None = None,
    *,
    rejected: Message | None = None,
    good: bool | None = None,
    prompt: bool = False,
) -> Conversation:
    """Create a conversation after checking that its turns alternate and that it ends with a response.

    Args:
        messages: what is said.
        tools: the functions that may be called.
        rejected: of a preference pair, the worse answer.
        good: of a judged answer, whether it is.
        prompt: it ends before an answer.

    Raises:
        BadExample: with the turn that is out of place; both answers of a pair say the same.
    """
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not turns:
        raise BadExample("it has no turn")
    before: Message | None = None
    for number, message in enumerate(turns, start=1):
        role = message["role"]
        if role not in _allowed_after(before):
            expected = " or ".join(_allowed_after(before))
            raise BadExample(f"turn {number} is the {role}'s, expected the {expected}'s")
        before = message
    if prompt and turns[-1]["role"] == ANSWER:
        raise BadExample("it ends with the assistant's turn, expected the user's")
    if not prompt and turns[-1]["role"] != ANSWER:
        raise BadExample(f"{UNENDED}{turns[-1]['role']}'s turn, expected the assistant's")
    for message in (*turns, *(() if rejected is None else (rejected,))):
        if message["role"] == ANSWER and not message["content"].strip() and not _says_more(message):
            raise BadExample(NO_ANSWER)
    if rejected is not None and rejected == turns[-1]:
        raise BadExample("the chosen and the rejected response are identical")
    return Conversation(tuple(messages), tools, rejected, good)


def verdict_of(value: object) -> bool:
    """Parse the label of a response (unpaired preference).

    Raises:
        BadExample: it is no yes or no.
    """
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    found = words.get(str(value).strip().lower())
    if found is None:
        raise BadExample(f"the label is {shown(value)}, expected true or false")
    return found


def ended(
    messages: list[Message],
    row: Mapping[str, object],
    columns: Mapping[str, str],
    read: Callable[[Mapping[str, Any]], Message],
) -> Conversation:
    """Create a conversation from messages and the row's response, preference or label columns.

    Args:
        messages: of the row's list.
        row: one record.
        columns: `chosen` and `rejected` name answers that follow the messages, as a message each, its text, or the
            whole conversation with it; `kto_tag` the mark of the last answer. Where `prompt` is named, what is wanted
            is what comes before the last answer.
        read: makes a message of a turn.

    Raises:
        BadExample: see `checked`.
    """
    tools = tools_of(row.get(columns.get("tools", "")))
    if "chosen" in columns:
        if columns["chosen"] == columns["messages"]:
            messages = messages[:-1]
        chosen, rejected = (_answer(row.get(columns[key]), read, key) for key in ("chosen", "rejected"))
        return checked([*messages, chosen], tools, rejected=rejected)
    if "kto_tag" in columns:
        return checked(messages, tools, good=verdict_of(row.get(columns["kto_tag"])))
    prompt = "prompt" in columns
    if prompt and messages and messages[-1]["role"] == ANSWER:
        messages = messages[:-1]
    return checked(messages, tools, prompt=prompt)


def _answer(value: object, read: Callable[[Mapping[str, Any]], Message], key: str) -> Message:
    """The answer that a cell of a pair holds."""
    value = json_of(value, key) if isinstance(value, str) and value.lstrip().startswith(("{", "[")) else value
    if isinstance(value, list) and value:
        value = value[-1]
    message = (
        read(value) if isinstance(value, dict) else {"role": ANSWER, "content": text_of(value, f"the {key} answer")}
    )
    if message["role"] != ANSWER:
        raise BadExample(f"the {key} response is the {message['role']}'s, expected the assistant's")
    return message


def _says_more(message: Message) -> bool:
    return bool(message.get("tool_calls") or message.get("reasoning_content"))


def _allowed_after(before: Message | None) -> tuple[str, ...]:
    if before is None:
        return ("user",)
    if before["role"] == "user":
        return (ANSWER,)
    if before["role"] == "tool":
        return (ANSWER, "tool")
    return ("tool", "user") if before.get("tool_calls") else ("user",)


def shown(value: object) -> str:
    """Format a value for an error message: truncated, and only the type of a container."""
    if value is None or isinstance(value, dict | list | tuple):
        return "missing" if value is None else f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} …"


def role_of(value: object, names: Mapping[str, str], where: str) -> str:
    """Map the role of a turn to `user`, `assistant`, `system` or `tool`.

    Args:
        value: what the turn says.
        names: the set's own name of each role to ours.
        where: which turn, and by which key, for the reason.

    Raises:
        BadExample: it is none of them.
    """
    role = names.get(value) if isinstance(value, str) else None
    if role is None:
        raise BadExample(f"{where} {shown(value)}, expected one of {', '.join(names)}")
    return role


def text_of(value: object, what: str) -> str:
    """Convert a cell or the content of a message to text.

    Args:
        value: text, a number or a list of text parts.
        what: name of the value in error messages.

    Raises:
        BadExample: it is something else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(part, what) for part in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise BadExample(f"{what} is {'missing' if value is None else f'a {type(value).__name__}, expected text'}")


def _part(part: object, what: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind == "text":
        raise BadExample(f"{what} has a part that is not text; expected a string, or an object with `type` and `text`")
    raise BadExample(f"{what} has a part of type {kind[:LONGEST_SHOWN]}, which is not supported yet; expected text")


def json_of(value: object, what: str) -> Any:
    """Parse a value that may be JSON text, such as a CSV cell or the arguments of a tool call.

    Args:
        value: JSON text, or a value that is already parsed.
        what: name of the value in error messages.

    Returns:
        The parsed value.

    Raises:
        BadExample: the text is not JSON, is nested too deeply, or contains a number with too many digits.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise BadExample(f"{what} is not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise BadExample(f"{what} is nested too deeply") from None
    except ValueError:
        raise BadExample(f"{what} has a number with too many digits") from None


def tools_of(value: object) -> tuple[dict[str, Any], ...] | None:
    """Parse the tool definitions of an example: a list or its JSON text. A bare schema is wrapped in `function`.

    Raises:
        BadExample: it is no list of objects.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    tools = json_of(value, "tools")
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadExample("tools is not a list of objects")
    odd = next((tool for tool in tools if not isinstance(tool.get("function", {}), dict)), None)
    if odd is not None:
        raise BadExample(f"the function of a tool is {shown(odd['function'])}, expected an object")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools) or None
