"""A record of any shape is dropped and counted beside good ones, for every format and every stage."""

import copy
import json
import random
from pathlib import Path

import pytest

from llf_core.config import RunConfig
from llf_core.config.registry import stage_of
from llf_core.data import DataError, prepare
from llf_core.data.conversation import answer_text
from llf_core.data.formats import OpenAI, ShareGPT
from llf_core.data.media import add_media
from llf_core.data.precheck import precheck
from llf_core.data.validation_split import prompts_of

SETS = 400
NESTED_NULLS = {"a": None, "b": [None, {"c": None}]}
ODD = [
    None, True, False, 0, 1.5, -1, 10**400, "", " ", "x", "[1]", '{"a": 1}', "[" * 2000, "null", "true", "\ud83d",
    "\x00", [], [None], [[]], [1, "a"], ["a", "b"], [["a"], ["b"]], [{}], {}, {"a": 1}, NESTED_NULLS, [NESTED_NULLS],
    {"role": "user"}, {"function": None}, [{"function": {"name": None}}], {"name": ["f"]},
    {"type": "text", "text": None}, [{"type": "text", "text": "a"}], [{"type": ["x"]}], {"type": {}},
    float("inf"), float("nan"),
]  # fmt: skip
CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}}}
OPENAI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Add 1."},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "2", "name": "add", "tool_call_id": "1"},
    {"role": "assistant", "content": "It is 2.", "reasoning_content": "1 + 1"},
]
SHAREGPT = [
    {"from": "human", "value": "Add 1."},
    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
    {"from": "observation", "value": "2"},
    {"from": "gpt", "value": "It is 2."},
]
ALPACA = {"instruction": "Add 1", "input": "to 1", "output": "2", "system": "Be brief.", "history": [["Hi", "Yo"]]}
OFFERED = {"tools": [TOOL]}
PAIR = {"chosen": "2", "rejected": "3"}
GOOD = {
    "sft": [ALPACA | OFFERED, {"messages": OPENAI} | OFFERED, {"conversations": SHAREGPT, "system": "x"} | OFFERED],
    "dpo": [
        {key: value for key, value in ALPACA.items() if key != "output"} | PAIR,
        {"messages": OPENAI[:2], "chosen": OPENAI[4], "rejected": {"role": "assistant", "content": "3"}},
        {"conversations": SHAREGPT[:1], "chosen": SHAREGPT[3], "rejected": {"from": "gpt", "value": "3"}},
        {"chosen": [*OPENAI[:2], OPENAI[4]], "rejected": [*OPENAI[:2], {"role": "assistant", "content": "3"}]},
    ],
    "kto": [ALPACA | {"kto_tag": True}, {"messages": OPENAI, "label": False}],
    "ppo": [ALPACA, {"messages": OPENAI[:2], "answer": "2"}, {"conversations": SHAREGPT, "system": "x"}],
    "pt": [{"text": "The sea and the ship."}],
}  # fmt: skip
MORE = {"pt": {"packing": False}, "ppo": {"reward_model": "some/model"}}
KNOWN = [
    ("sft", 1, ("messages", 1, "role"), ["user"]),
    ("sft", 1, ("messages", 1, "role"), {"a": 1}),
    ("sft", 2, ("conversations", 0, "from"), ["human"]),
    ("sft", 2, ("conversations", 0, "from"), {}),
    ("sft", 1, ("messages", 2, "tool_calls"), True),
    ("sft", 1, ("messages", 2, "tool_calls"), 3),
    ("sft", 0, ("history",), 1.5),
    ("sft", 0, ("history",), True),
    ("sft", 0, ("history",), {"a": "b"}),
    ("sft", 1, ("tools", 0, "function"), None),
    ("sft", 1, ("tools", 0, "function"), [1]),
    ("sft", 0, ("tools",), "[" * 5000),
    ("sft", 1, ("messages", 2, "tool_calls", 0, "function", "arguments"), "9" * 5000),
    ("dpo", 1, ("chosen", "role"), []),
    ("kto", 0, ("kto_tag",), {"a": None}),
    ("ppo", 1, ("messages", 1, "content"), {"type": []}),
    ("pt", 0, ("text",), [[None]]),
]


def places(value, path=()):
    """The paths of everything inside a record."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def replaced(row, path, value):
    """A record with another value at a path; without it where the value is `del`."""
    row = copy.deepcopy(row)
    inner = row
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return row


def odd_of(row, dice):
    """A record in which one to three values are others, or lie deeper."""
    for _ in range(dice.choice((1, 1, 2, 3))):
        path = dice.choice([path for path in places(row) if path])
        value = copy.deepcopy(dice.choice(ODD))
        row = replaced(row, path, dice.choice((value, value, [value], {path[-1]: value})))
    return row


@pytest.fixture
def use(tmp_path, tokenizer):
    """`use(stage, rows) -> report`: what becomes of some rows in all that reads them before a run."""

    def prepared(stage, rows, **values):
        path = tmp_path / "rows.jsonl"
        path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass"))
        asked = {"model_name_or_path": "some/model", "stage": stage, "dataset": str(path), "overwrite_cache": True}
        config = RunConfig.load(asked | MORE.get(stage, {}) | values, base=tmp_path)
        precheck(config, str(path), stage_of(config).data_kind)
        found = prepare(config, tokenizer)
        if stage == "ppo":
            prompts_of(config, found)
        return found.report

    return prepared


def attempt(use, *arguments, **values):
    """The report of some rows, or the sentence that refuses them."""
    try:
        return use(*arguments, **values), ""
    except DataError as error:
        return None, str(error)


@pytest.mark.parametrize(("stage", "number", "path", "value"), KNOWN)
def test_a_record_of_an_odd_shape_is_dropped_with_a_reason(use, stage, number, path, value):
    good = GOOD[stage][number]
    template = {} if stage == "pt" else {"template": "qwen"}
    before = use(stage, [good, good], **template)
    assert before.examples == 2, before.unusable()
    report = use(stage, [good, replaced(good, path, value), good], **template)
    (dropped,) = report.unusable()
    assert dropped.index == 1
    assert report.examples == 2
    assert "Error" not in dropped.reason
    assert len(dropped.reason) < 400


@pytest.mark.parametrize("part", range(8))
def test_generated_sets_are_read_or_refused_with_a_sentence(use, part):
    dice = random.Random(part)
    refused = 0
    for _ in range(SETS // 8):
        stage = dice.choice(list(GOOD))
        good = dice.choice(GOOD[stage])
        rows = [good] * dice.choice((0, 1, 3)) + [odd_of(good, dice) for _ in range(dice.choice((1, 2, 5)))]
        dice.shuffle(rows)
        template = dice.choice([None, None, "qwen", "llama3", "gemma"]) if stage != "pt" else None
        report, said = attempt(use, stage, rows, **({} if template is None else {"template": template}))
        if report is None:
            refused += 1
            assert said.endswith((".", "?"))
            assert len(said) < 700
        else:
            assert report.examples + len({one.index for one in report.unusable()}) >= len(rows)
            unused = {one.index for one in report.unusable()}
            good_ones = {place for place, row in enumerate(rows) if row == good}
            assert not unused & good_ones or good_ones <= unused  # a template may show no tools
            assert all(len(one.reason) < 400 for one in report.unusable())
    assert refused < SETS // 8


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (OpenAI, {"messages": json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])}),
        (ShareGPT, {"messages": json.dumps([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}])}),
    ],
)
def test_a_column_without_a_name_has_no_role(kind, row):
    row |= {"": "17"}  # the index that pandas writes
    talk = kind.align(row, {"messages": "messages"}, {})
    assert talk == kind.align({"messages": row["messages"]}, {"messages": "messages"}, {})
    assert add_media(talk, row, {"messages": "messages"}, Path()).media == ()


@pytest.mark.parametrize("content", ["", " ", None])
def test_an_answer_without_text_is_its_calls(content):
    assert answer_text({"content": content, "tool_calls": [CALL]}) == json.dumps([CALL["function"]])
    assert not answer_text({"content": content}).strip()
