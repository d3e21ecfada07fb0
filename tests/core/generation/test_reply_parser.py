"""Replies taken apart: published templates parsed back, any division into chunks, malformed calls, cut off replies."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llf_core.chat.request import Piece
from llf_core.data.templates import named_template
from llf_core.generation.replies.call_reader import CallReader, InvalidJSONError, JSONObject, typed_json
from llf_core.generation.replies.reply_formats import CALL_FORMATS, THOUGHTS, ReplyFormat, recognize_format
from llf_core.generation.replies.reply_parser import ReplyParser

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llf_core.generation.replies.reply_parser import Part

(TRL,) = importlib.util.find_spec("trl").submodule_search_locations  # type: ignore[union-attr]
PUBLISHED = Path(TRL, "chat_templates")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name."},
                    "days": {"type": "integer", "description": "Number."},
                    "deep": {"type": "object", "description": "Options."},
                },
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "now", "description": "Time.", "parameters": {"type": "object", "properties": {}}},
    },
]
ARGUMENTS = {"city": 'Rome, "x"\nand {y}', "days": 3, "deep": {"a": [1, None, True, -2.5e3], "é": {}}}


def gathered(parts: Iterable[Part]) -> dict[str, Any]:
    """The whole texts and calls of parts."""
    found: dict[str, Any] = {"content": "", "reasoning": "", "calls": []}
    for part in parts:
        if isinstance(part, Piece):
            found[part.kind] += part.text
        elif part.name:
            assert part.index == len(found["calls"])
            assert part.id
            found["calls"].append([part.name, part.arguments])
        else:
            found["calls"][part.index][1] += part.arguments
    return found


def parsed(text: str, how: ReplyFormat, cuts: Iterable[int] = (), **more: Any) -> dict[str, Any]:
    parser = ReplyParser(how, **{"tools": TOOLS} | more)
    at, parts = 0, []
    for cut in (*sorted(cuts), len(text)):
        parts += parser.feed(text[at:cut])
        at = cut
    return gathered(parts + parser.finish())


def call(name: str, arguments: dict[str, Any] | str) -> dict[str, Any]:
    return {"id": "callnr001", "type": "function", "function": {"name": name, "arguments": arguments}}


def rendered(template: str, message: dict[str, Any]) -> tuple[str, str]:
    """The end of the prompt and the reply, as a template writes them."""
    from transformers.utils.chat_template_utils import render_jinja_template

    asked = [{"role": "user", "content": "hi"}]
    options = {"tools": TOOLS, "chat_template": template, "bos_token": "<bos>", "eos_token": "<eos>"}
    before = render_jinja_template(conversations=[asked], add_generation_prompt=True, **options)[0][0]
    whole = render_jinja_template(conversations=[[*asked, message]], **options)[0][0]
    length = next((at for at, (one, other) in enumerate(zip(before, whole)) if one != other), len(before))  # noqa: B905
    return before[:length], whole[length:]


# What each template writes of a reply with text, a thought and calls: whether the thought, and how many calls.
WRITES = {
    "deepseekv3": (False, 2),
    "diffusion_gemma": (True, 2),
    "gemma4_v5": (True, 2),
    "glm4moe": (True, 2),
    "lfm2_2_5_v2": (True, 2),
    "lfm2_v2": (False, 2),
    "llama3_1": (False, 1),
    "llama3_2": (False, 1),
    "nemotron_3_nano": (True, 2),
    "nemotron_3_5_lightning": (True, 2),
    "qwen2_5": (False, 2),
    "qwen3": (True, 2),
    "qwen3_5_nothink": (True, 2),
    "qwen3_5_think": (True, 2),
    "qwen3_8": (True, 2),
    "qwen3_instruct_2507": (False, 2),
}
ENDS = (
    "<|im_end|>\n",
    "<eos>",
    "<|eot_id|>",
    "<|tool_response>",
    "<turn|>\n",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)


@pytest.mark.parametrize("name", WRITES)
def test_replies_of_published_templates_are_parsed_back(name: str) -> None:
    thinks, count = WRITES[name]
    template = (PUBLISHED / f"{name}.jinja").read_text()
    arguments = json.dumps(ARGUMENTS, ensure_ascii=False) if name == "deepseekv3" else ARGUMENTS
    empty = "{}" if name == "deepseekv3" else {}
    calls = [call("get_weather", arguments), call("now", empty)][:count]
    message = {"role": "assistant", "content": "Let me see.", "reasoning_content": "I think.", "tool_calls": calls}
    prompt, reply = rendered(template, message)
    for end in ENDS:
        reply = reply.removesuffix(end)
    found = parsed(reply, recognize_format(template), prompt=prompt)
    expected = [["get_weather", ARGUMENTS], ["now", {}]][:count]
    assert [[one, json.loads(text)] for one, text in found["calls"]] == expected
    assert found["reasoning"] == ("I think." if thinks else "")
    assert found["content"] == ("" if name.startswith("llama3") else "Let me see.")
    again = parsed(reply, recognize_format(template), range(len(reply)), prompt=prompt)
    assert again == found


# LLF's named templates with tools, and the number of calls that one reply can have.
NAMED = {
    "qwen3": 2, "qwen3_5": 2, "lfm2": 2, "llama3": 2, "mistral": 2, "ministral": 2, "gemma4": 2, "phi4_mini": 1,
    "glm4_moe": 2, "bailing_v2": 2, "minimax1": 2, "minimax2": 2, "seed_oss": 2, "chatml": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_replies_of_named_templates_are_parsed_back(name: str) -> None:
    template = named_template(name).jinja()
    calls = [call("get_weather", {**ARGUMENTS, "city": "Rome, {y}"}), call("now", {})][: NAMED[name]]
    prompt, reply = rendered(template, {"role": "assistant", "content": "", "tool_calls": calls})
    end = named_template(name).end
    reply = reply.strip().removesuffix("<eos>" if end == "eos_token" else end)
    found = parsed(reply, recognize_format(template, named_template(name).tokens), prompt=prompt)
    assert [[one, json.loads(text)] for one, text in found["calls"]] == [
        [one["function"]["name"], one["function"]["arguments"]] for one in calls
    ], reply
    assert not found["content"].strip()


def one_format(name: str) -> ReplyFormat:
    return ReplyFormat(THOUGHTS, tuple(one for one in CALL_FORMATS if one.name == name), ("<|hidden|>",))


WEATHER = ["get_weather", '{"city": "Rome"}']
WRITTEN = tomllib.loads(Path(__file__).with_name("replies.toml").read_text())["reply"]


@pytest.mark.parametrize("reply", WRITTEN, ids=lambda reply: reply["format"])
def test_calls_as_models_write_them(reply: dict[str, Any]) -> None:
    how, text, content, calls = one_format(reply["format"]), reply["text"], reply["content"], reply["calls"]
    expected = {"content": content, "reasoning": "", "calls": calls}
    assert parsed(text, how) == expected
    assert parsed(text, how, range(len(text))) == expected
    thought = parsed(f"<think>\nWhy?\n</think>\n\n{text}", how, range(len(text)))
    assert thought["reasoning"] == "Why?"
    assert thought["calls"] == calls
    assert parsed(text, how, tools=())["content"] == text.replace("<|hidden|>", "")


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ("[NaN]", None, '"[NaN]"'),
        ("1e999", {"type": "number"}, '"1e999"'),
        ("5", {"type": 5, "anyOf": 5}, "5"),
        ("5", {"anyOf": [{"type": "string"}, {"type": "null"}]}, '"5"'),
    ],
)
def test_values_are_json_also_by_an_odd_schema(value: str, schema: object, expected: str) -> None:
    assert typed_json(value, schema) == expected


def test_thoughts() -> None:
    how = one_format("hermes")
    assert parsed("Because.\n</think>\n\nYes.", how, prompt="<|im_start|>assistant\n<think>\n") == {
        "reasoning": "Because.", "content": "Yes.", "calls": [],
    }  # fmt: skip
    assert parsed("Yes.", how, prompt="<think>\n\n</think>\n\n")["content"] == "Yes."
    assert parsed("The tag <think> opens a thought.", how)["content"] == "The tag <think> opens a thought."
    assert parsed("<think>cut off ", how)["reasoning"] == "cut off "
    assert parsed("[THINK]a[/THINK]b", how) == {"reasoning": "a", "content": "b", "calls": []}


def test_harmony() -> None:
    how = recognize_format("<|channel|><|message|><|start|>", ["<|channel|>", "<|end|>", "<|constrain|>"])
    text = (
        "<|channel|>analysis<|message|>I think.<|end|><|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}'
        "<|call|><|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>"
        "<|start|>assistant<|channel|>analysis<|message|>More.<|end|><|start|>assistant<|channel|>final<|message|>Done."
    )
    expected = {"content": "Wait.\n\nDone.", "reasoning": "I think.\n\nMore.", "calls": [WEATHER, ["now", "{}"]]}
    assert parsed(text, how) == expected
    assert parsed(text, how, range(len(text))) == expected


PIECES = st.sampled_from(
    sorted(
        {mark for one in CALL_FORMATS for mark in (one.begin, one.end, *one.call, *one.key, *one.value, *one.name_ends)}
        | {mark for one in THOUGHTS for mark in one}
        | {
            '{"name": "now", "arguments": ',
            '{"a": [1, "x"]}',
            "}",
            '"',
            "now",
            "Action Input:",
            "[",
            "]",
            "(a=1)",
            " ",
            "\n",
        }
    )
)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([*sorted({one.name for one in CALL_FORMATS}), "all", "harmony"]),
    st.lists(PIECES | st.text(max_size=4), max_size=9).map("".join),
    st.data(),
)
def test_any_division_gives_the_same_parts(name: str, text: str, data: st.DataObject) -> None:
    unlike = {one.begin: one for one in reversed(CALL_FORMATS)}.values()
    how = {
        "all": ReplyFormat(THOUGHTS, tuple(unlike), ("<|hidden|>",)),
        "harmony": ReplyFormat(harmony=True, hidden=("<|constrain|>",)),
    }.get(name) or one_format(name)
    whole = parsed(text, how)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    assert parsed(text, how, cuts) == whole
    assert parsed(text, how, range(len(text))) == whole
    if not whole["calls"] and not whole["reasoning"] and name not in {"harmony", "all"}:
        assert whole["content"] == text or any(one.begin in text for one in THOUGHTS)


def test_a_mark_is_not_sent_before_it_is_certain_and_arguments_grow() -> None:
    parser = ReplyParser(one_format("hermes"), tools=TOOLS)
    assert gathered(parser.feed("Look: <tool"))["content"] == "Look:"
    assert gathered(parser.feed("box> "))["content"] == " <toolbox>"
    assert parser.feed(' <tool_call>{"name": "now", "arguments": ') == []
    (begun,) = parser.feed('{"a": "b')
    assert (begun.name, begun.arguments) == ("now", '{"a": "b')  # type: ignore[union-attr]
    (more,) = parser.feed(" c")
    assert (more.name, more.arguments) == ("", " c")  # type: ignore[union-attr]


@pytest.mark.parametrize("mark", [one.begin or "{" for one in CALL_FORMATS])
def test_many_marks_are_not_read_again_for_each_mark(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    how = ReplyFormat(THOUGHTS, tuple({one.begin: one for one in reversed(CALL_FORMATS)}.values()))
    read = CallReader.take
    count = 0

    def counting(reader: CallReader, char: str) -> Any:
        nonlocal count
        count += 1
        return read(reader, char)

    monkeypatch.setattr(CallReader, "take", counting)
    text = f'{mark}{{"a": ' * 300
    assert parsed(text, how, range(0, len(text), 5))["content"].startswith(mark[:1])
    assert count < 3 * len(text)


@pytest.mark.parametrize(
    ("text", "held"),
    [("[1", "1"), ("[1{", "1"), ("[1x]", "1x"), ("[1 x", ""), ("[tru", "tru"), ('{"a":1{', "1"), ("[", "")],
)
def test_a_number_that_an_error_ends_is_not_lost(text: str, held: str) -> None:
    scanner = JSONObject()
    with suppress(InvalidJSONError):
        for char in text:
            scanner.take(char)
    assert scanner.held == held
