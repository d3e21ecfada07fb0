"""How models write reasoning and tool calls: a table, and which of it a chat template uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

Syntax = Literal["json", "named_json", "mistral", "parameters", "python", "gemma", "action"]


class Thought(NamedTuple):
    """Marks around reasoning."""

    begin: str
    end: str


@dataclass(frozen=True)
class CallFormat:
    """How tool calls are written.

    Attributes:
        found_by: texts of which all occur in a chat template that uses it.
        syntax: how name and arguments are found between the marks: `json` (an object with both, several, or a list of
            them), `named_json` (the name, a separator, the arguments as JSON), `mistral` (either of them),
            `parameters` (each argument between marks), `python` (a list of calls), `gemma` (JSON with its own quotes),
            `action` (lines `Action` and `Action Input`).
        begin: mark before the first call; empty where a reply that begins with JSON is a call.
        end: mark after the last call; empty where the call itself ends it.
        call: of `named_json` and `parameters`: marks around each call, where there are any beside `begin` and `end`.
            The name of the function follows the first one.
        key: marks around the name of a parameter.
        value: marks around the value of a parameter; the first may be empty.
    """

    name: str
    found_by: tuple[str, ...]
    syntax: Syntax
    begin: str
    end: str = ""
    call: tuple[str, str] = ("", "")
    name_ends: tuple[str, ...] = ()
    key: tuple[str, str] = ("", "")
    value: tuple[str, str] = ("", "")


def _deepseek(name: str) -> str:
    """A special token of DeepSeek: with a fullwidth vertical line on both sides, and U+2581 in place of `_`."""
    line = "\N{FULLWIDTH VERTICAL LINE}"
    return f"<{line}{name.replace('_', chr(0x2581))}{line}>"


CALL_FORMATS = (
    CallFormat(
        "glm", ("<arg_key>", "<tool_call>"), "parameters", "<tool_call>", "</tool_call>",
        name_ends=("\n", "<arg_key>", "</tool_call>"), key=("<arg_key>", "</arg_key>"),
        value=("<arg_value>", "</arg_value>"),
    ),
    CallFormat(
        "seed", ("<seed:tool_call>",), "parameters", "<seed:tool_call>", "</seed:tool_call>",
        call=("<function=", "</function>"), name_ends=(">",), key=("<parameter=", ">"), value=("", "</parameter>"),
    ),
    CallFormat(
        "qwen_xml", ("<function=", "<tool_call>"), "parameters", "<tool_call>", "</tool_call>",
        call=("<function=", "</function>"), name_ends=(">",), key=("<parameter=", ">"), value=("", "</parameter>"),
    ),
    CallFormat(
        "minimax", ("<minimax:tool_call>",), "parameters", "<minimax:tool_call>", "</minimax:tool_call>",
        call=('<invoke name="', "</invoke>"), name_ends=('">',), key=('<parameter name="', '">'),
        value=("", "</parameter>"),
    ),
    CallFormat("hermes", ("<tool_call>",), "json", "<tool_call>", "</tool_call>"),
    CallFormat("tool_calls", ("<tool_calls>",), "json", "<tool_calls>", "</tool_calls>"),
    CallFormat("mistral", ("[TOOL_CALLS]",), "mistral", "[TOOL_CALLS]", name_ends=("[CALL_ID]", "[ARGS]", "{")),
    CallFormat(
        "deepseek", (_deepseek("tool_calls_begin"),), "named_json", _deepseek("tool_calls_begin"),
        _deepseek("tool_calls_end"), call=(_deepseek("tool_call_begin"), _deepseek("tool_call_end")),
        name_ends=(_deepseek("tool_sep"),),
    ),
    CallFormat(
        "kimi", ("<|tool_calls_section_begin|>",), "named_json", "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>", call=("<|tool_call_begin|>", "<|tool_call_end|>"),
        name_ends=("<|tool_call_argument_begin|>",),
    ),
    CallFormat("lfm2", ("<|tool_call_start|>",), "python", "<|tool_call_start|>", "<|tool_call_end|>"),
    CallFormat("gemma", ("<|tool_call>",), "gemma", "<|tool_call>call:", "<tool_call|>"),
    CallFormat("cohere", ("<|START_ACTION|>",), "json", "<|START_ACTION|>", "<|END_ACTION|>"),
    CallFormat("llama_tag", ("<|python_tag|>",), "json", "<|python_tag|>"),
    CallFormat("llama", ("parameters", "<|start_header_id|>"), "json", ""),
    CallFormat("action", ("Action Input:",), "action", "Action:"),
)  # fmt: skip
"""Formats of calls; of those with the same opening mark, the more specific come first."""
THOUGHTS = (
    Thought("<think>", "</think>"),
    Thought("<seed:think>", "</seed:think>"),
    Thought("[THINK]", "[/THINK]"),
    Thought("<|channel>thought\n", "<channel|>"),
    Thought("<|START_THINKING|>", "<|END_THINKING|>"),
    Thought("◁think▷", "◁/think▷"),
    Thought("<thought>", "</thought>"),
)
HARMONY = ("<|channel|>", "<|message|>", "<|start|>")
"""Marks in a chat template of OpenAI's harmony format (gpt-oss)."""


@dataclass(frozen=True)
class ReplyFormat:
    """How a model writes its replies.

    Attributes:
        calls: formats of calls, with different opening marks.
        hidden: special tokens that are not part of a reply's text.
        harmony: whether it is OpenAI's harmony format, whose channels have reasoning, calls and text.
    """

    thoughts: tuple[Thought, ...] = ()
    calls: tuple[CallFormat, ...] = ()
    hidden: tuple[str, ...] = ()
    harmony: bool = False


def recognize_format(chat_template: str | None, special_tokens: Iterable[str] = ()) -> ReplyFormat:
    """Find how a model writes reasoning and calls, by the marks in its chat template.

    `<think>` is recognized for every model without OpenAI's harmony format. Special tokens that are not marks are
    hidden.
    """
    text = chat_template or ""
    special = {token for token in special_tokens if token}
    if all(mark in text for mark in HARMONY):
        return ReplyFormat(hidden=tuple(sorted(special)), harmony=True)
    calls: dict[str, CallFormat] = {}
    for one in CALL_FORMATS:
        if all(found in text for found in one.found_by):
            calls.setdefault(one.begin, one)
    thoughts = tuple(one for one in THOUGHTS if one is THOUGHTS[0] or one.end in text)
    known = [mark for one in calls.values() for mark in (one.begin, one.end, *one.call, *one.name_ends)]
    known += [mark for one in thoughts for mark in one]
    hidden = sorted(token for token in special if not any(token in mark or mark == token for mark in known if mark))
    return ReplyFormat(thoughts, tuple(calls.values()), tuple(hidden))
