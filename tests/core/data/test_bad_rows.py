"""Every kind of bad row is counted and named with its number; the others are learned from."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from llf_core.data import DataError, prepare

GOOD = {"instruction": "Hi", "output": "Yo"}
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def talk(*turns):
    return json.dumps({"messages": list(turns)})


BAD = {
    "no JSON": ('{"instruction": "Hi" "output": "Yo"}', "it cannot be read: Expecting ',' delimiter at column 22"),
    "cut": ('{"instruction": "Hi", "out', "it cannot be read: Unterminated string"),
    "a list": ("[1, 2]", "it cannot be read: a list, expected an object"),
    "the same key twice": (
        '{"instruction": "Hi", "output": "Yo", "output": "Yes"}',
        "it cannot be read: the key 'output' twice",
    ),
    "an answer of another type": ('{"instruction": "Hi", "output": {"a": 1}}', "the response is a dict, expected text"),
    "an answer that is null": ('{"instruction": "Hi", "output": null}', "the response is missing"),
    "an empty answer": ('{"instruction": "Hi", "output": " \\n"}', "a response is empty"),
    "an empty question": ('{"instruction": "", "output": "Yo"}', "the prompt is empty"),
    "half of a surrogate pair": ('{"instruction": "Hi", "output": "\\ud83d"}', "its text is not valid Unicode"),
    "a history that is none": ('{"instruction": "Hi", "output": "Yo", "history": [["a"]]}', "history is not a list of"),
}
BAD_TALKS = {
    "a wrong role": (talk(TURNS[0], {"role": "bot", "content": "Yo"}), "message 2 has role 'bot'"),
    "an odd turn": (talk(*TURNS, TURNS[0]), "it ends with the user's turn"),
    "two in a row": (talk(TURNS[0], TURNS[0], TURNS[1]), "turn 2 is the user's, expected the assistant's"),
    "no turn": (talk(), "it has no turn"),
    "no list": ('{"messages": "Hi"}', "messages is not JSON"),
    "a late system prompt": (talk(*TURNS, {"role": "system", "content": "x"}), "a system message is not first"),
    "a call without a name": (
        talk(TURNS[0], {"role": "assistant", "tool_calls": [{"function": {}}]}),
        "a tool call of message 2 has no function name",
    ),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_TALKS])
def test_a_bad_row_is_counted_and_named(make_config, write, tokenizer, name):
    line, reason = (BAD | BAD_TALKS)[name]
    good = json.dumps(GOOD) if name in BAD else talk(*TURNS)
    write(f"{good}\n{good}\n{line}\n{good}\n")
    report = prepare(make_config(), tokenizer).report
    (dropped,) = report.unusable()
    assert (dropped.index, dropped.dataset) == (2, "data.jsonl")
    assert reason in dropped.reason
    assert report.examples == 3
    assert report.sets[0].records == 4
    with pytest.raises(DataError, match=r"1 record gives no example.*data.jsonl line 3: "):
        prepare(make_config(stop_on_dropped=True), tokenizer)


def test_a_template_that_raises_names_each_row_that_it_refuses(make_config, write, tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'bad' in m['content'] %}{{ raise_exception('not that word') }}{% endif %}"
        "{{ m['role'] + ':' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    write([GOOD, {**GOOD, "instruction": "a bad word"}, {**GOOD, "output": "bad"}])
    report = prepare(make_config(), tokenizer).report
    assert [one.index for one in report.dropped] == [1, 2]
    assert {one.reason for one in report.dropped} == {"the chat template cannot render it: not that word"}


def test_a_line_of_ten_megabytes_is_one_record(make_config, write, tokenizer):
    write([GOOD, {**GOOD, "output": "the sea and the ship " * 500_000}, GOOD])
    report = prepare(make_config(cutoff_len=64), tokenizer).report
    assert report.examples == 3
    (cut,) = report.truncated
    assert cut.index == 1
    assert cut.cut > 1_000_000


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_a_column_that_is_there_twice_is_refused(make_config, write, tokenizer, tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        path.write_text("instruction,output,output\nHi,Yo,Yes\n")
    elif kind == "json":
        path.write_text('[{"instruction": "Hi", "output": "Yo", "output": "Yes"}]')
    else:
        arrays = [pa.array(["Hi"]), pa.array(["Yo"]), pa.array(["Yes"])]
        parquet.write_table(pa.Table.from_arrays(arrays, ["instruction", "output", "output"]), path)
    with pytest.raises(DataError, match=r"output.* twice"):
        prepare(make_config(dataset=str(path)), tokenizer)
