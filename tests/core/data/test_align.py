"""Rows of every format become the same conversation; what cannot is named."""

import json
from dataclasses import replace

import pytest

from llf_core.data.align import decide
from llf_core.data.conversation import ANSWERS, PAIRS, PROMPTS, TEXTS, UNPAIRED
from llf_core.data.errors import BadExample, DataError, OtherKindError
from llf_core.data.sources import Source

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}],
}
RESULT = {"role": "tool", "content": "4"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def align(row, formatting=None, columns=None, tags=(), *, ranking=False, kind=ANSWERS):
    columns = columns if columns is None else tuple(columns.items())
    tags = tuple(dict(tags).items())
    source = Source("set", "set", formatting=formatting, columns=columns, tags=tags, ranking=ranking)
    reading = decide(source, [row], kind)
    return reading, reading.align(row)


def turns(*pairs):
    return [{"from": who, "value": value} for who, value in pairs]


@pytest.mark.parametrize(
    ("row", "formatting", "messages"),
    [
        ({"instruction": "2+2?", "input": "", "output": "4"}, "alpaca", [USER, ANSWER]),
        (
            {"instruction": "2+2?", "output": "4", "system": "Be brief.", "history": [["1+1?", "2"]]},
            "alpaca",
            [SYSTEM, {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}, USER, ANSWER],
        ),
        (
            {"instruction": "Add", "input": "2 and 2", "output": 4},
            "alpaca",
            [{"role": "user", "content": "Add\n2 and 2"}, ANSWER],
        ),
        ({"question": "2+2?", "answer": "4"}, "alpaca", [USER, ANSWER]),
        ({"prompt": "2+2?", "completion": "4"}, "alpaca", [USER, ANSWER]),
        ({"conversations": turns(("human", "2+2?"), ("gpt", "4"))}, "sharegpt", [USER, ANSWER]),
        (
            {"conversations": turns(("system", "Be brief."), ("human", "2+2?"), ("gpt", "4"))},
            "sharegpt",
            [SYSTEM, USER, ANSWER],
        ),
        (
            {
                "conversations": turns(
                    ("human", "2+2?"),
                    ("function_call", '{"name": "add", "arguments": {"a": 2, "b": 2}}'),
                    ("observation", "4"),
                    ("gpt", "4"),
                ),
                "tools": '[{"name": "add", "parameters": {}}]',
                "system": "Be brief.",
            },
            "sharegpt",
            [SYSTEM, USER, CALL, RESULT, ANSWER],
        ),
        ({"messages": [SYSTEM, USER, ANSWER]}, "openai", [SYSTEM, USER, ANSWER]),
        ({"messages": json.dumps([USER, ANSWER])}, "openai", [USER, ANSWER]),
        ({"conversations": [USER, ANSWER], "system": "Be brief."}, "openai", [SYSTEM, USER, ANSWER]),
    ],
)
def test_a_format_is_proposed_and_its_rows_become_messages(row, formatting, messages):
    reading, conversation = align(row)
    assert reading.format == formatting
    assert list(conversation.messages) == messages
    assert conversation.tools == ((TOOL,) if "tools" in row else None)


WORSE = {"role": "assistant", "content": "5"}
TALK = [*turns(("human", "2+2?"))]


@pytest.mark.parametrize(
    ("row", "entry", "formatting"),
    [
        ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, {}, "alpaca"),
        ({"prompt": "2+2?", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, {}, "alpaca"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, {}, "openai"),
        ({"messages": [USER], "chosen": ANSWER, "rejected": WORSE}, {}, "openai"),
        ({"messages": [USER], "chosen": json.dumps(ANSWER), "rejected": "5"}, {}, "openai"),
        (
            {"conversations": TALK, "chosen": turns(("gpt", "4"))[0], "rejected": turns(("gpt", "5"))[0]},
            {"formatting": "sharegpt", "ranking": True},
            "sharegpt",
        ),
        (
            {"instruction": "2+2?", "input": "", "good": "4", "bad": "5"},
            {
                "formatting": "alpaca",
                "ranking": True,
                "columns": {"prompt": "instruction", "query": "input", "chosen": "good", "rejected": "bad"},
            },
            "alpaca",
        ),
    ],
)
def test_pairs_are_a_conversation_and_a_worse_answer(row, entry, formatting):
    reading, conversation = align(row, kind=PAIRS, **entry)
    assert (reading.format, reading.kind, conversation.kind) == (formatting, PAIRS, PAIRS)
    assert list(conversation.messages) == [USER, ANSWER]
    assert conversation.rejected == WORSE


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        ({"prompt": "2+2?", "completion": "4", "label": True}, {}),
        ({"messages": [USER, ANSWER], "label": "yes"}, {}),
        (
            {"instruction": "2+2?", "output": "4", "kto_tag": 1.0},
            {"formatting": "alpaca", "columns": {"prompt": "instruction", "response": "output", "kto_tag": "kto_tag"}},
        ),
        (
            {"messages": [USER, ANSWER], "label": True},
            {"formatting": "openai", "columns": {"messages": "messages", "kto_tag": "label"}},
        ),
    ],
)
def test_judged_answers_carry_their_mark(row, entry):
    reading, conversation = align(row, kind=UNPAIRED, **entry)
    assert (reading.kind, conversation.kind, conversation.good) == (UNPAIRED, UNPAIRED, True)
    assert list(conversation.messages) == [USER, ANSWER]
    # stage sft learns from the answers and leaves the mark alone
    assert align(row, **entry)[1].good is None


@pytest.mark.parametrize(
    ("row", "kind", "messages"),
    [
        ({"instruction": "2+2?", "output": "4"}, PROMPTS, [USER]),
        ({"prompt": "2+2?"}, PROMPTS, [USER]),
        ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, PROMPTS, [USER]),
        ({"prompt": [USER], "solution": "4"}, PROMPTS, [USER]),
        ({"messages": [SYSTEM, USER, ANSWER]}, PROMPTS, [SYSTEM, USER]),
        ({"messages": [USER, ANSWER, USER, ANSWER]}, PROMPTS, [USER, ANSWER, USER]),
        ({"messages": [USER], "chosen": ANSWER, "rejected": WORSE}, PROMPTS, [USER]),
        ({"chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, PROMPTS, [USER]),
        ({"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}, PROMPTS, [USER]),
        ({"text": "Once."}, TEXTS, [{"role": "text", "content": "Once."}]),
        ({"body": "Once."}, TEXTS, [{"role": "text", "content": "Once."}]),
    ],
)
def test_prompts_and_texts(row, kind, messages):
    reading, conversation = align(row, kind=kind)
    assert (reading.kind, conversation.kind) == (kind, kind)
    assert list(conversation.messages) == messages


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        (
            {"q": "2+2?", "good": "4", "bad": "5"},
            {
                "formatting": "alpaca",
                "ranking": True,
                "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"},
            },
        ),
        (
            {"talk": [USER], "good": ANSWER, "bad": WORSE},
            {"formatting": "openai", "columns": {"messages": "talk", "chosen": "good", "rejected": "bad"}},
        ),
        ({"talk": [USER, ANSWER]}, {"formatting": "openai", "columns": {"messages": "talk"}}),
    ],
)
def test_every_entry_has_prompts(row, entry):
    reading, conversation = align(row, kind=PROMPTS, **entry)
    assert (reading.kind, conversation.kind) == (PROMPTS, PROMPTS)
    assert list(conversation.messages) == [USER]


def test_an_alpaca_entry_of_one_column_is_text_for_pretraining():
    assert align({"text": "Once."}, "alpaca", {"prompt": "text"}, kind=TEXTS)[1].kind == TEXTS


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, PAIRS, "are identical"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, PAIRS, "a response is empty"),
        ({"messages": [USER], "chosen": USER, "rejected": WORSE}, PAIRS, "the chosen response is the user's"),
        (
            {"prompt": "a", "completion": "b", "label": "maybe"},
            UNPAIRED,
            "the label is 'maybe', expected true or false",
        ),
        ({"text": "  "}, TEXTS, "the text is empty"),
    ],
)
def test_pairs_marks_and_texts_that_cannot_be_used_are_named(row, kind, reason):
    with pytest.raises(BadExample, match=reason):
        align(row, kind=kind)


def test_a_proposed_format_says_how_many_rows_fit():
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": ""}]
    reading = decide(Source("set", "set"), rows)
    assert reading.fits == 0.5
    assert reading.text() == "alpaca (columns instruction and output; 50 % of the first rows match)"


def test_openai_messages_are_carried_through_as_they_are():
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}],
    }
    result = {"role": "tool", "tool_call_id": "c1", "name": "add", "content": "4"}
    think = {"role": "assistant", "content": "4", "reasoning_content": "Two and two.", "refusal": None}
    row = {"messages": [SYSTEM, USER, call, result, think], "tools": [TOOL]}
    _, conversation = align(row)
    said = conversation.messages
    assert said[0] == SYSTEM
    assert said[2]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
    ]
    assert said[2]["content"] == ""
    assert said[3] == result
    assert said[4] == {"role": "assistant", "content": "4", "reasoning_content": "Two and two."}


def test_content_in_text_parts_is_joined():
    parts = {"role": "user", "content": [{"type": "text", "text": "2"}, {"type": "text", "text": "+2?"}]}
    assert align({"messages": [parts, ANSWER]})[1].messages == (USER, ANSWER)


def test_columns_and_tags_of_an_entry_are_mapped():
    row = {"talk": [{"who": "q", "text": "2+2?"}, {"who": "a", "text": "4"}], "note": "Be brief."}
    tags = {"role_tag": "who", "content_tag": "text", "user_tag": "q", "assistant_tag": "a"}
    _, conversation = align(row, "sharegpt", {"messages": "talk", "system": "note"}, tags)
    assert list(conversation.messages) == [SYSTEM, USER, ANSWER]


def test_naming_columns_leaves_out_the_ones_not_named():
    row = {"instruction": "2+2?", "input": "never", "output": "4"}
    _, conversation = align(row, "alpaca", {"prompt": "instruction", "response": "output"})
    assert conversation.messages == (USER, ANSWER)


@pytest.mark.parametrize(
    ("row", "entry", "message"),
    [
        (
            {"instructions": "a", "output": "b"},
            {"formatting": "alpaca"},
            "no column 'instruction'.*Did you mean 'instructions'",
        ),
        ({"a": "x", "b": "y"}, {"formatting": "alpaca", "columns": {"prompt": "a", "response": "c"}}, "no column 'c'"),
        ({"turns": []}, {"formatting": "sharegpt"}, "no column 'conversations'.*Its columns: turns"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, {}, "preference pairs"),
        ({"text": "Once upon a time"}, {}, "plain text"),
        ({"a": 1, "b": 2}, {}, "columns a, b, which match no known format"),
    ],
)
def test_columns_that_do_not_fit_are_one_sentence(row, entry, message):
    with pytest.raises(DataError, match=message):
        align(row, **entry)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "2+2?", "output": ""}, "a response is empty"),
        ({"instruction": "2+2?", "output": None}, "the response is missing"),
        ({"instruction": " ", "output": "4"}, "the prompt is empty"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "history is not a list of"),
        ({"instruction": "a", "output": {"b": 1}}, "the response is a dict, expected text"),
        ({"conversations": turns(("human", "a"), ("human", "b"))}, "turn 2 is the user's, expected the assistant's"),
        ({"conversations": turns(("gpt", "a"), ("human", "b"))}, "turn 1 is the assistant's, expected the user's"),
        ({"conversations": turns(("human", "a"))}, "ends with the user's turn"),
        ({"conversations": turns(("bot", "a"))}, "turn 1 has from 'bot', expected one of human, gpt"),
        ({"conversations": turns(("human", "a"), ("system", "b"))}, "turn 2 is the system's, expected it first"),
        ({"conversations": turns(("human", "a"), ("function_call", "{"))}, "the call in turn 2 is not JSON"),
        ({"conversations": turns(("human", "a"), ("function_call", "{}"))}, "the call in turn 2 has no name"),
        ({"conversations": turns(("human", "a"), ("observation", "b"))}, "turn 2 is the tool's"),
        ({"messages": [USER, ANSWER, RESULT]}, "turn 3 is the tool's, expected the user's"),
        ({"messages": [USER, SYSTEM, ANSWER]}, "a system message is not first"),
        ({"messages": [{"role": "user"}, ANSWER]}, "the content of message 1 is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ANSWER]}, "part of type image_url"),
        ({"messages": [USER, {**CALL, "tool_calls": [{}]}]}, "tool call of message 2 has no function name"),
        ({"messages": [{"role": "critic", "content": "a"}]}, "message 1 has role 'critic'"),
    ],
)
def test_an_example_that_says_nothing_learnable_has_a_reason(row, reason):
    with pytest.raises(BadExample, match=reason):
        align(row)


def test_the_same_conversation_is_the_same_bytes_from_any_format():
    rows = [
        {"instruction": "2+2?", "output": "4"},
        {"conversations": turns(("human", "2+2?"), ("gpt", "4"))},
        {"messages": [{"content": "2+2?", "role": "user"}, ANSWER]},
    ]
    assert len({align(row)[1].canonical() for row in rows}) == 1
    assert align({"instruction": "2+2?", "output": "5"})[1].canonical() != align(rows[0])[1].canonical()


def test_half_a_surrogate_is_a_reason_and_no_crash():
    with pytest.raises(BadExample, match="not valid Unicode"):
        align({"instruction": "a", "output": "\ud800"})[1].canonical()


@pytest.mark.parametrize("rejected", [{}, {"rejected": "bad"}])
@pytest.mark.parametrize(("kind", "formatting"), [(ANSWERS, "alpaca"), (PROMPTS, "alpaca"), (ANSWERS, "openai")])
def test_columns_of_pairs_are_left_alone_without_ranking(kind, formatting, rejected):
    """As in LLaMA-Factory, an entry that is no ranking is read by its response, whatever else it names."""
    row = {"q": "2+2?", "a": "4", "good": "5", "bad": "6", "talk": [USER, ANSWER]}
    named = {"prompt": "q", "response": "a"} if formatting == "alpaca" else {"messages": "talk"}
    _, conversation = align(row, formatting, {**named, "chosen": "good", **rejected}, kind=kind)
    assert list(conversation.messages) == ([USER] if kind == PROMPTS else [USER, ANSWER])
    assert conversation.rejected is None


@pytest.mark.parametrize(
    "said",
    [
        "[1, 2, 3]", '{"sum": 4}', "[Note] It is 4.", "{", '[{"sum": 4}]', "[]",
        '{"role": "engineer", "from": "Oslo"}', '[{"role": ["nurse"], "from": {}}]',
    ],
)  # fmt: skip
def test_an_answer_of_a_pair_may_be_json_or_begin_like_it(said):
    for asked in ({"messages": [USER]}, {"prompt": "2+2?"}, {"conversations": turns(("human", "2+2?"))}):
        row = {**asked, "chosen": said, "rejected": "5"}
        assert align(row, kind=PAIRS)[1].messages[-1] == {"role": "assistant", "content": said}


def test_json_text_of_messages_is_read_as_messages_in_every_format():
    for chosen, rejected in (([USER, ANSWER], [USER, WORSE]), (ANSWER, WORSE)):
        for asked in ({"prompt": "2+2?"}, {"messages": [USER]}):
            row = {**asked, "chosen": json.dumps(chosen), "rejected": json.dumps(rejected)}
            _, conversation = align(row, kind=PAIRS)
            assert (conversation.messages, conversation.rejected) == ((USER, ANSWER), WORSE)


def test_a_rename_leaves_an_answer_in_json_as_it_is():
    said = '{"thought": "2 and 2", "sum": 4}'
    row = {"messages": [USER], "chosen": said, "rejected": json.dumps({**WORSE, "thought": "Hm."})}
    reading = replace(decide(Source("set", "set"), [row], PAIRS), renames=(("thought", "reasoning_content"),))
    conversation = reading.align(row)
    assert conversation.messages[-1] == {"role": "assistant", "content": said}
    assert conversation.rejected == {**WORSE, "reasoning_content": "Hm."}


def test_empty_cells_of_a_pandas_table_are_no_text():
    nan = float("nan")
    row = {"instruction": "2+2?", "input": nan, "system": nan, "history": nan, "tools": nan, "output": "4"}
    assert align(row)[1].messages == (USER, ANSWER)
    with pytest.raises(BadExample, match="the response is missing"):
        align({"instruction": "2+2?", "output": nan})
    with pytest.raises(BadExample, match="the content of message 2 is missing"):
        align({"messages": [USER, {"role": "assistant", "content": nan}]})


def test_the_number_zero_is_text():
    assert align({"instruction": "Add 4", "input": 0, "output": 4})[1].messages == (
        {"role": "user", "content": "Add 4\n0"},
        ANSWER,
    )


def test_a_call_without_arguments_has_an_empty_object():
    for written in ("null", '""', "{}", '"null"'):
        call = f'{{"name": "add", "arguments": {written}}}'
        row = {"conversations": turns(("human", "2+2?"), ("function_call", call))}
        assert align(row)[1].messages[-1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {}}
        row = {"messages": [USER, {"role": "assistant", "tool_calls": f'[{{"function": {call}}}]'}]}
        assert align(row)[1].messages[-1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {}}
    assert align({"messages": [USER, ANSWER | {"tool_calls": "null"}]})[1].messages == (USER, ANSWER)
    plain = align({"instruction": "2+2?", "output": "4", "tools": "null", "history": "null"})[1]
    assert (plain.messages, plain.tools) == ((USER, ANSWER), None)


def test_plain_text_is_no_prompt_in_any_declaration():
    with pytest.raises(OtherKindError, match="contains plain text"):
        align({"text": "Once."}, "text", kind=PROMPTS)


def test_a_text_column_may_begin_with_an_empty_cell():
    reading = decide(Source("set", "set"), [{"text": None}, {"text": "Once."}], TEXTS)
    assert (reading.format, reading.fits) == ("text", 0.5)
