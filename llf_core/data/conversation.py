"""The common representation of all data sets, and a rendered conversation."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.data.errors import BadExample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.config.declaration import DataKind

Message = dict[str, Any]
PLAIN = 2  # number of keys of a message with role and content only
ANSWER = "assistant"

REASONING_FIELDS = (
    "reasoning_content", "thinking", "reasoning", "thought", "thoughts", "think", "cot", "chain_of_thought",
    "rationale",
)  # fmt: skip
"""Keys of the reasoning of an answer in data sets and chat templates, the most common first."""
LONGEST_SHOWN = 60

# Kinds of data.
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

# Beginnings of the reasons for dropping a record without an answer.
NO_ANSWER, MISSING, UNENDED = "a response is empty", "the response is missing", "it ends with the "
UNANSWERED = (NO_ANSWER, MISSING, UNENDED)


class Medium(NamedTuple):
    """An image, video or audio clip (`kind`): path of its file, or its bytes as a `data:` URL."""

    kind: str
    value: str


@dataclass(frozen=True)
class Conversation:
    """A conversation: messages, tools, and label or rejected response.

    Attributes:
        messages: `{"role", "content"}` each, with roles `system` (first only), `user`, `assistant` (optionally with
            `tool_calls`) and `tool`. The last one is the assistant's, but not in a prompt; plain text is one message of
            role `text`.
        tools: JSON schemas of the functions that may be called.
        rejected: in a preference pair, the answer that is worse than the last message.
        good: in an unpaired preference, whether the last answer is good.
        media: images, videos and audio clips, in the order of their placeholders.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None
    rejected: Message | None = None
    good: bool | None = None
    media: tuple[Medium, ...] = ()

    @property
    def kind(self) -> DataKind:
        """Kind of data that it is, one of `DATA_KINDS`: a stage trains on one kind only."""
        if self.rejected is not None:
            return PAIRS
        if self.good is not None:
            return UNPAIRED
        return {ANSWER: ANSWERS, "text": TEXTS}.get(self.messages[-1]["role"], PROMPTS)

    def canonical(self) -> bytes:
        """Canonical serialization, equal for equal conversations in any file format, for a data set's fingerprint."""
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


def answer_text(message: Message) -> str:
    """The text of an answer, or its calls (in OpenAI's form) as JSON if it has no text."""
    text = str(message["content"] or "")
    if not text.strip() and message.get("tool_calls"):
        return json.dumps([call["function"] for call in message["tool_calls"]], ensure_ascii=False)
    return text


def checked(
    messages: list[Message],
    tools: tuple[dict[str, Any], ...] | None = None,
    *,
    rejected: Message | None = None,
    good: bool | None = None,
    prompt: bool = False,
) -> Conversation:
    """Create a conversation after checking that its turns alternate and that it ends with a response or is a `prompt`.

    Args:
        rejected: in a preference pair, the worse answer.
        good: in an unpaired preference, whether the answer is good.
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


def label_of(value: object) -> bool:
    """Parse the label of a response: a boolean, 1 or 0, or `true`, `false`, `yes`, `no`, `1` or `0` in any case."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, bool | int | float) and value in {0, 1}:  # a column of floats holds 1.0
        return bool(value)
    found = words.get(str(value).strip().lower())
    if found is None:
        raise BadExample(f"the label is {brief_value(value)}, expected true or false")
    return found


def cell_of(row: Mapping[str, object], columns: Mapping[str, str], role: str) -> object:
    """Value of a record in the column of a role such as `tools`; None if there is none, or it is NaN."""
    value = row.get(columns[role]) if role in columns else None
    return None if _is_nan(value) else value


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def with_ending(
    messages: list[Message],
    row: Mapping[str, object],
    columns: Mapping[str, str],
    read: Callable[[Mapping[str, object]], Message],
    tags: Mapping[str, str],
) -> Conversation:
    """Create a conversation from messages and the row's response, preference or label columns.

    Args:
        columns: the row's column for each of LLaMA-Factory's names. `chosen` and `rejected` name answers that follow
            the messages: a message each, its text, or the whole conversation with it, also as JSON text. `kto_tag`
            names the label of the last answer. With `prompt`, the messages are the prompt, without an answer at their
            end.
        tags: the data set's name for each of LLaMA-Factory's tags.
    """
    tools = tools_of(cell_of(row, columns, "tools"))
    if "chosen" in columns:
        if columns["chosen"] == columns["messages"]:
            messages = messages[:-1]
        chosen, rejected = (
            _answer(turns_or_text(cell_of(row, columns, key), tags), read, key) for key in ("chosen", "rejected")
        )
        return checked([*messages, chosen], tools, rejected=rejected)
    if "kto_tag" in columns:
        return checked(messages, tools, good=label_of(cell_of(row, columns, "kto_tag")))
    prompt = "prompt" in columns
    if prompt and messages and messages[-1]["role"] == ANSWER:
        messages = messages[:-1]
    return checked(messages, tools, prompt=prompt)


def turns_or_text(value: object, tags: Mapping[str, str]) -> object:
    """Parse the cell of an answer if it is JSON text of a turn or of turns.

    Any other text is the answer itself, also if it is JSON without a known role, as in data with structured answers.
    """
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return value
        turns = parsed if isinstance(parsed, list) else [parsed]
        if turns and all(isinstance(one, dict) for one in turns) and turns[-1].get(tags["role_tag"]) in tags.values():
            return parsed
    return value


def _answer(value: object, read: Callable[[Mapping[str, object]], Message], key: str) -> Message:
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


def brief_value(value: object) -> str:
    """Format a value for an error message: truncated, only the type of a container, and `missing` for None."""
    if value is None or isinstance(value, dict | list | tuple):
        return "missing" if value is None else f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} …"


def role_of(value: object, names: Mapping[str, str], where: str) -> str:
    """Map the role of a turn to `user`, `assistant`, `system` or `tool`, since data sets name roles differently."""
    role = names.get(value) if isinstance(value, str) else None
    if role is None:
        raise BadExample(f"{where} {brief_value(value)}, expected one of {', '.join(names)}")
    return role


def text_of(value: object, what: str) -> str:
    """Convert text, a number, or a list of text parts (as in OpenAI's API) to text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(part, what) for part in value)
    if isinstance(value, int | float) and not isinstance(value, bool) and not _is_nan(value):
        return str(value)
    missing = value is None or _is_nan(value)
    raise BadExample(f"{what} is {'missing' if missing else f'a {type(value).__name__}, expected text'}")


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
    """Parse a value that may be JSON text, such as a CSV cell or the arguments of a tool call."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise BadExample(f"{what} is not JSON ({error.msg.removesuffix(' at')} at column {error.colno})") from None
    except RecursionError:
        raise BadExample(f"{what} is nested too deeply") from None
    except ValueError:
        raise BadExample(f"{what} has a number with too many digits") from None


def tools_of(value: object) -> tuple[dict[str, Any], ...] | None:
    """Parse the tool definitions of an example: a list, one object, or their JSON text; None without tools.

    A bare schema is wrapped to OpenAI's form, `{"type": "function", "function": schema}`.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    tools = json_of(value, "tools")
    if tools is None:
        return None
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadExample("tools is not a list of objects")
    odd = next((tool for tool in tools if not isinstance(tool.get("function", {}), dict)), None)
    if odd is not None:
        raise BadExample(f"the function of a tool is {brief_value(odd['function'])}, expected an object")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools) or None


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation.

    Attributes:
        answers: ranges `[start, end)` of the answers in characters: from the end of the generation prompt to the end of
            what the template writes for the turn (the end token and a newline after it).
        cuts: positions at which the text is split before tokenization, including every boundary of an answer; None if
            it is tokenized as a whole, as by `apply_chat_template`.
        media: images, videos and audio, in order of their placeholders.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    cuts: tuple[int, ...] | None = None
    media: tuple[Medium, ...] = ()
