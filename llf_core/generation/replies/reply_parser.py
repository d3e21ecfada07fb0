"""Separates a model's text into text, reasoning and tool calls, while it is generated or as a whole.

The `ResponseParser` of transformers does a part of this: it sends the arguments of a call only when they are complete,
raises an error for a malformed call, and knows the models whose tokenizer has a `response_template`.

Parts of a reply: pieces of text and of tool calls.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llf_core.generation.replies.call_reader import MAX_NAME, CallReader, find_mark, held_at_end
from llf_core.generation.replies.reply_formats import recognize_format
from llf_core.generation.text_stream import TextStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.generation.replies.reply_formats import CallFormat, ReplyFormat, Thought


@dataclass(frozen=True)
class Alternative:
    """A token that could stand in the place of a token.

    Attributes:
        text: its text; may be empty or hold U+FFFD, if it is a part of a character.
        logprob: natural logarithm of its probability before temperature and other sampling parameters.
    """

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Token:
    """A token of a reply; `top` are the most likely tokens in its place, highest first."""

    id: int
    text: str
    logprob: float
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Piece:
    """New text of a reply; the concatenated pieces of a kind are the whole text of that kind.

    Attributes:
        kind: `content`, or `reasoning` before the answer.
        tokens: its tokens, if the request asks for log-probabilities. They may come with an empty text while a
            character or a tool call is incomplete.
    """

    text: str
    kind: Literal["content", "reasoning"] = "content"
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class ToolCallPiece:
    """A part of a tool call with some JSON text of its arguments; `id` and `name` are empty after the first part."""

    index: int
    arguments: str
    id: str = ""
    name: str = ""


Part = Piece | ToolCallPiece
ID_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

ID_LENGTH = 9
"""Length of a call's id. Mistral's chat templates accept no other."""
HEADER, BODY_END = "<|message|>", ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class ReplyParser:
    """Parses one reply. Any division of the text into chunks gives the same parts.

    Text that may begin a mark is held back. What looks like a call and is not one remains text. Arguments are sent as
    they are written, also if they turn out not to be JSON after the name was sent.

    Args:
        tools: the offered functions, in OpenAI's format. Without any, calls are text.
        prompt: the text before the reply, which may have opened a thought; its end suffices.
        thinks_first: whether the reply begins within a thought although `prompt` does not end with its mark.
    """

    def __init__(
        self,
        reply_format: ReplyFormat,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        prompt: str = "",
        thinks_first: bool = False,
    ) -> None:
        self._format = reply_format
        self._schemas = {name: schema for tool in tools for name, schema in _schema(tool)}
        self._calls = reply_format.calls if tools else ()
        self._thought = _opened(reply_format, prompt, thinks_first=thinks_first)
        self._mode: Literal["text", "thought", "call", "header", "body"] = "thought" if self._thought else "text"
        if reply_format.harmony:
            self._mode = "header"
        self._parts: list[Part] = []
        self._buffer = ""
        self._spaces = ""  # whitespace that is dropped if a mark follows
        self._written = False  # whether text was sent
        self._begins = True  # whether leading whitespace is dropped
        self._index = -1
        self._reader: CallReader | None = None
        self._mark = ""
        self._kind: Literal["content", "reasoning", "arguments"] = "content"
        self._bodies: set[str] = set()

    def feed(self, text: str) -> list[Part]:
        """Take decoded tokens, with special tokens except the end-of-sequence token; the parts that are now certain."""
        self._buffer += text
        self._run(final=False)
        return self._take_parts()

    def finish(self) -> list[Part]:
        """End the reply, and return what was held back."""
        self._run(final=True)
        return self._take_parts()

    def _take_parts(self) -> list[Part]:
        parts, self._parts = self._parts, []
        return parts

    def _run(self, *, final: bool) -> None:
        steps = {
            "text": self._read_text,
            "thought": self._read_thought,
            "call": self._read_call,
            "header": self._read_header,
            "body": self._read_body,
        }
        while steps[self._mode](final=final):
            pass

    # Text and thoughts. Each reader returns whether it may be called again.

    def _read_text(self, *, final: bool) -> bool:
        if not self._written and self._index < 0 and self._bare_call(final=final):
            return self._mode == "call"
        marks: dict[str, CallFormat | Thought | None] = dict.fromkeys(self._format.hidden)
        if not self._written:
            marks |= {one.begin: one for one in self._format.thoughts}
        marks |= {one.begin: one for one in self._calls if one.begin}
        at, mark = find_mark(self._buffer, marks)
        if mark is None:
            kept = 0 if final else held_at_end(self._buffer, marks)
            self._text(self._buffer[: len(self._buffer) - kept])
            self._buffer = self._buffer[len(self._buffer) - kept :]
            if final and not (self._begins and self._marked):
                self._send(self._spaces)
                self._spaces = ""
            return False
        self._text(self._buffer[:at])
        self._buffer = self._buffer[at + len(mark) :]
        found = marks[mark]
        if found is None:
            return True
        if isinstance(found, tuple):
            if self._written:  # text stood between the beginning of this buffer and the mark
                self._text(mark)
                return True
            self._mode, self._thought, self._spaces, self._begins = "thought", found, "", True
            return True
        self._open_call(found, mark)
        return True

    def _bare_call(self, *, final: bool) -> bool:
        """Whether a reply that begins with JSON is opened as a call, or is too short to decide."""
        bare = next((one for one in self._calls if not one.begin), None)
        start = (self._spaces + self._buffer).lstrip()
        if bare is None or (not start and not final) or start[:1] not in {"{", "["}:
            return bare is not None and not start and not final
        self._spaces = self._spaces + self._buffer[: len(self._buffer) - len(self._buffer.lstrip())]
        self._buffer = self._buffer.lstrip()
        self._open_call(bare, "")
        return True

    def _open_call(self, call: CallFormat, mark: str) -> None:
        self._mode, self._mark = "call", self._spaces + mark
        self._spaces = ""
        self._reader = CallReader(call, self._schemas, self._begin, self._argue)

    def _text(self, text: str) -> None:
        """Send text, and hold back whitespace at its end, which is dropped before a mark."""
        if not text:
            return
        text = self._spaces + text
        if self._begins:
            text = text.lstrip() if self._marked and not self._written else text
        kept = text.rstrip()
        if self._has_marks and not kept:
            self._spaces = text
            return
        if self._has_marks:
            text, self._spaces = kept, text[len(kept) :]
        else:
            self._spaces = ""
        self._send(text)

    @property
    def _has_marks(self) -> bool:
        return bool(self._calls or self._format.thoughts)

    @property
    def _marked(self) -> bool:
        """Whether reasoning or a call precedes the text, so that whitespace between them is dropped."""
        return self._index >= 0 or self._thought is not None

    def _send(self, text: str, kind: Literal["content", "reasoning"] = "content") -> None:
        if not text:
            return
        if kind == "content":
            self._written, self._begins = True, False
        last = self._parts[-1] if self._parts else None
        if isinstance(last, Piece) and last.kind == kind:
            self._parts[-1] = Piece(last.text + text, kind)
        else:
            self._parts.append(Piece(text, kind))

    def _read_thought(self, *, final: bool) -> bool:
        if self._thought is None:
            return False
        if self._begins:
            self._buffer = self._buffer.lstrip()
            self._begins = not self._buffer
        at = self._buffer.find(self._thought.end)
        if at >= 0:
            self._send(self._buffer[:at].rstrip(), "reasoning")
            self._buffer = self._buffer[at + len(self._thought.end) :]
            self._mode, self._begins = "text", True
            return True
        kept = 0 if final else held_at_end(self._buffer, (self._thought.end,))
        sure = self._buffer[: len(self._buffer) - kept]
        text = sure if final else sure.rstrip()
        self._send(text, "reasoning")
        self._buffer = self._buffer[len(text) :]
        return False

    # Calls.

    def _read_call(self, *, final: bool) -> bool:
        reader, state = self._reader, "more"
        if reader is None:
            return False
        taken = 0
        while taken < len(self._buffer) and state == "more":
            state = reader.take(self._buffer[taken])
            taken += 1
        self._buffer = self._buffer[taken:]
        while final and state == "more":
            state = reader.take("")
        if state == "more":
            return False
        self._buffer = reader.rest + self._buffer
        if state == "malformed" and not reader.certain:
            # At least a character becomes text, so that it is not tried again.
            mark, self._buffer = (self._mark, self._buffer) if self._mark else (self._buffer[:1], self._buffer[1:])
            self._send(mark)
        else:
            self._begins = True
        self._mode, self._reader = "text", None
        return True

    def _begin(self, name: str, call_id: str = "") -> None:
        self._index += 1
        call_id = call_id or "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))
        self._parts.append(ToolCallPiece(self._index, "", call_id, name))

    def _argue(self, text: str) -> None:
        last = self._parts[-1] if self._parts else None
        if isinstance(last, ToolCallPiece) and last.index == self._index:
            self._parts[-1] = ToolCallPiece(last.index, last.arguments + text, last.id, last.name)
        elif text:
            self._parts.append(ToolCallPiece(self._index, text))

    # Harmony: `<|channel|>analysis<|message|>…<|end|><|start|>assistant…`.

    def _read_header(self, *, final: bool) -> bool:
        at = self._buffer.find(HEADER)
        if at < 0:
            if not final and len(self._buffer) <= MAX_NAME:
                return False
            if self._bodies or self._index >= 0 or not self._buffer.strip():  # cut off within a header
                return False
            self._mode, self._kind = "body", "content"
            return True
        header, self._buffer = self._buffer[:at], self._buffer[at + len(HEADER) :]
        recipient, channel = _RECIPIENT.search(header), _CHANNEL.search(header)
        if recipient is not None and self._schemas:
            self._kind = "arguments"
            self._begin(recipient[1])
        else:
            self._kind = "reasoning" if channel is not None and channel[1] == "analysis" else "content"
            if self._kind in self._bodies:
                self._send("\n\n", self._kind)
            self._bodies.add(self._kind)
        self._mode = "body"
        return True

    def _read_body(self, *, final: bool) -> bool:
        at, mark = find_mark(self._buffer, (*BODY_END, *self._format.hidden))
        text = self._buffer
        if mark is not None:
            text = self._buffer[:at]
        elif not final:
            text = text[: len(text) - held_at_end(text, (*BODY_END, *self._format.hidden))]
        if self._kind == "arguments":
            self._argue(text)
        else:
            self._send(text, self._kind)
        self._buffer = self._buffer[len(text) + len(mark or "") :]
        if mark in BODY_END:
            self._mode = "header"
        return mark is not None


def _opened(reply_format: ReplyFormat, prompt: str, *, thinks_first: bool) -> Thought | None:
    """The thought that the prompt has opened."""
    end = prompt.rstrip()
    opened = (one for one in reply_format.thoughts if end.endswith(one.begin.rstrip()))
    return next(opened, reply_format.thoughts[0] if thinks_first and reply_format.thoughts else None)


def _schema(tool: Mapping[str, object]) -> list[tuple[str, dict[str, object]]]:
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return []
    parameters = function.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    properties = parameters.get("properties")
    return [(function["name"], properties if isinstance(properties, dict) else {})]


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
