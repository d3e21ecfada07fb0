"""Prompts keep their records: messages, columns, the right answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llf_core.config import RunConfig
from llf_core.data import DataError, prepare
from llf_core.data.validation_split import prompts_of

SUMS = [
    {"question": f"What is {n} and {n}?", "answer": str(2 * n), "level": n, "tags": ["sum", {"n": n}]} for n in range(6)
]


@pytest.fixture
def prompts(tiny_tokenizer, tmp_path):
    """`prompts(rows, **changes)`: of a file with some rows."""

    def make(rows: Any, **changes: Any):
        path = tmp_path / f"rows{len(list(tmp_path.glob('rows*')))}.json"
        path.write_text(json.dumps(rows))
        asked = {"stage": "grpo", "reward_functions": "format", "per_device_train_batch_size": 8, "dataset": str(path)}
        config = RunConfig.load(asked | changes)
        prepared = prepare(config, tiny_tokenizer)
        return prompts_of(config, prepared)

    return make


def test_a_record_comes_along_as_it_is(prompts):
    found = prompts(SUMS)
    assert found.eval is None
    assert found.left_out == ""
    assert found.columns == ("question", "answer", "level", "tags")
    rows = list(found.train)
    assert [row["row"] for row in rows] == SUMS
    assert rows[3]["prompt"] == [{"role": "user", "content": "What is 3 and 3?"}]
    assert [row["expected"] for row in rows] == ["0", "2", "4", "6", "8", "10"]


@pytest.mark.parametrize(
    ("row", "entry", "expected"),
    [
        ({"prompt": "1+1?", "solution": "long way to 2", "answer": "2"}, None, "2"),
        ({"prompt": "1+1?", "solution": "2"}, None, "2"),
        ({"prompt": "1+1?", "answer": 2}, None, "2"),
        ({"prompt": "1+1?", "answers": ["2", "two"]}, None, "2"),
        ({"prompt": "1+1?", "answer": "", "output": "2"}, None, "2"),
        ({"prompt": "1+1?", "answer": True}, None, None),
        ({"prompt": "1+1?"}, None, None),
        ({"prompt": "1+1?", "answer": "3", "key": "2"}, {"prompt": "prompt", "response": "key"}, "2"),
        ({"prompt": [{"role": "user", "content": "1+1?"}], "solution": "2"}, None, "2"),
        (
            {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]},
            None,
            "2",
        ),
        ({"messages": [{"role": "user", "content": "1+1?"}]}, None, None),
        ({"prompt": "1+1?", "chosen": "2", "rejected": "3"}, None, None),
    ],
)
def test_the_right_answer_is_found(prompts, row, entry, expected):
    named = {} if entry is None else {"dataset_format": "alpaca", "dataset_columns": entry}
    (found,) = prompts([row], **named).train
    assert found["prompt"] == [{"role": "user", "content": "1+1?"}]
    assert found["row"] == row
    assert found["expected"] == expected


def test_an_empty_cell_of_a_pandas_table_is_no_answer(prompts):
    (found,) = prompts([{"prompt": "1+1?", "answer": float("nan"), "output": "2"}]).train
    assert found["expected"] == "2"


def test_the_default_system_prompt_is_said_first(prompts):
    (row,) = prompts(SUMS[:1], default_system="Be brief.").train
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][0]["content"] == "Be brief."


def test_what_is_held_out_is_no_part_of_the_others(prompts):
    found = prompts(SUMS, val_size=2)
    train, held = ([row["row"]["level"] for row in part] for part in (found.train, found.eval))
    assert (len(train), len(held)) == (4, 2)
    assert sorted(train + held) == [0, 1, 2, 3, 4, 5]


def test_several_sets_are_kept_apart(prompts, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"instruction": "Say b.", "hint": "b"}]))
    more = tmp_path / "more.json"
    more.write_text(json.dumps([{"instruction": "Say c."}, {"instruction": "Say d."}]))
    found = prompts(SUMS[:1], dataset=f"{other},{more}", eval_dataset=str(more), eval_strategy="epoch")
    assert [row["row"] for row in found.train] == [
        {"instruction": "Say b.", "hint": "b"},
        {"instruction": "Say c."},
        {"instruction": "Say d."},
    ]
    assert [row["row"]["instruction"] for row in found.eval] == ["Say c.", "Say d."]
    assert found.columns == ("instruction", "hint")


def test_long_prompts_and_functions_are_left_out_and_counted(prompts):
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    rows = [
        {"prompt": "short"},
        {"prompt": "the sea and the ship " * 500},
        {"prompt": "with tools", "tools": json.dumps([tool])},
    ]
    found = prompts(rows, cutoff_len=1500, template="qwen")
    assert [row["row"]["prompt"] for row in found.train] == ["short"]
    assert "1 prompt has more than cutoff_len 1,500 tokens and is dropped." in found.left_out
    assert "1 prompt uses tools, which are not supported yet, and is dropped." in found.left_out
    with pytest.raises(DataError, match=r"No prompts remain\. 1 prompt has more than cutoff_len 40"):
        prompts(rows[1:2], cutoff_len=40)
