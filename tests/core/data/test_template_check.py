"""What a chat template does with the fields of the data: found by sentinels, told, and mended by a rename."""

import copy
import json

import pytest

from llf_core.config.chat_templates import entries, template_names
from llf_core.config.declarations.formats import OPENAI
from llf_core.data import prepare
from llf_core.data.answer_ranges import render_answers
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import Conversation
from llf_core.data.inspect import Inspection
from llf_core.data.records import rename_fields
from llf_core.data.template_check import CALLS, SYSTEM, TOOLS, fields_of, template_check
from llf_core.data.templates import named_template
from llf_core.runs import RunReader, RunWriter, create_run
from tests.core.data import templates as jinja

THOUGHT = ("assistant", "thought")
READS_REASONING = jinja.PLAIN.replace(
    "+ m['content']",
    "+ ('<think>' + m['reasoning_content'] + '</think>' if m['reasoning_content'] else '') + m['content']",
)
WRITES_CALLS = jinja.PLAIN.replace(
    "+ m['content']",
    "+ m['content'] + (m['tool_calls'][0]['function'].name + m['tool_calls'][0]['function']['arguments'] "
    "if m['tool_calls'] else '')",
)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
THINKING = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "thought": "Hm.", "id": "7"}]


@pytest.fixture
def check(tokenizer, own):
    return lambda source, *fields: template_check(own(source), tokenizer, fields)


@pytest.mark.parametrize(
    ("source", "state", "rename"),
    [
        (jinja.PLAIN, "dropped", ""),
        (READS_REASONING, "dropped", "reasoning_content"),
        (READS_REASONING.replace("reasoning_content", "thought"), "rendered", ""),
        ("{{ raise_exception('no') }}", "fails", ""),
    ],
)
def test_a_field_is_rendered_dropped_or_an_error(check, source, state, rename):
    (found,) = check(source, THOUGHT).fields
    assert (found.state, found.rename) == (state, rename)
    sentence = found.text("own")
    assert (sentence == "") == (state == "rendered")
    assert ("never renders the field `thought`" in sentence) == (state == "dropped")
    assert ('set `rename_fields` to {"thought": "reasoning_content"}' in sentence) == bool(rename)


def test_calls_tools_and_the_system_prompt_have_sentinels_of_their_own(check, tokenizer):
    assert [one.state for one in check(jinja.PLAIN, CALLS, SYSTEM, TOOLS).fields] == ["dropped", "dropped", "rendered"]
    named = template_check(choose_template("qwen", with_end(tokenizer)), tokenizer, [CALLS, SYSTEM, TOOLS])
    assert {one.state for one in named.fields} == {"rendered"}
    assert named.stop == "<|im_end|>"


def with_end(tokenizer):
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    return tokenizer


def test_ids_and_weights_are_noted_and_not_warned_of(check):
    found = check(jinja.PLAIN, ("assistant", "id"), ("tool", "name"))
    assert found.warnings("own") == []
    assert found.notes("own") == ["Fields that the chat template (own) never renders: `id`, `name`."]


def test_arguments_that_are_objects_become_text_where_the_template_takes_only_text(check, tokenizer, own):
    assert check(jinja.PLAIN).object_arguments is None
    assert check(WRITES_CALLS).object_arguments is False
    assert check(WRITES_CALLS, CALLS).fields[0].state == "rendered"
    turns = ({"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [CALL]})
    assert 'add{"a": 1}<|im_end|>' in render_answers(own(WRITES_CALLS), tokenizer, Conversation(turns)).text
    assert check(WRITES_CALLS.replace("['arguments']", "['arguments'] | tojson")).object_arguments is True


@pytest.mark.parametrize(
    ("source", "prefixes"),
    [
        (jinja.PLAIN, ["kept"] * 4),
        (jinja.STRIPS_THINKING, ["kept", "kept", "kept", "rewritten"]),
        (jinja.COUNTS_TURNS, ["rewritten"] * 4),
        (jinja.PLAIN + "{% if tools %}{{ raise_exception('no tools') }}{% endif %}", ["kept", "kept", "fails", "kept"]),
    ],
)
def test_a_text_up_to_a_turn_is_a_prefix_of_the_text_with_later_turns(check, source, prefixes):
    found = check(source).prefixes
    assert [found[kind] for kind in ("plain", "system", "tools", "reasoning")] == prefixes


@pytest.mark.parametrize(
    ("source", "stop"),
    [
        (jinja.PLAIN, "<|im_end|>"),
        (jinja.MARKED, "<|im_end|>"),
        (
            jinja.MARKED.replace("+ '<|im_end|>\n' }}{% endgeneration %}", "}}{% endgeneration %}{{ '<|im_end|>\n' }}"),
            "",
        ),
        (jinja.PLAIN.replace("<|im_end|>", ""), ""),
        ("{{ raise_exception('no') }}", None),
    ],
)
def test_the_token_that_ends_an_answer_is_in_the_loss(check, source, stop):
    found = check(source)
    assert found.stop == stop
    assert bool(found.warnings("own")) == (stop == "")


@pytest.mark.long
def test_every_named_template_ends_answers_and_keeps_prefixes_unless_it_says_otherwise(tokenizer):
    """One that reasons leaves out earlier reasoning; one with `once` closes the last answer only."""
    lacking, rewriting = [], []
    for name in template_names():
        named, entry = named_template(name), entries()[name]
        ends = [] if named.end == "eos_token" else [named.end]
        one = copy.deepcopy(tokenizer)
        one.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": ends})
        found = template_check(choose_template(name, one), one)
        lacking += [] if found.stop in {"</s>", *ends} else [name]
        rewrites = found.prefixes["plain"] != "kept"
        rewriting += [name] if rewrites and not named.thinks and not entry.get("once") else []
    assert lacking == ["empty"]  # it writes nothing but the words
    assert rewriting == []


def test_a_named_template_that_differs_from_the_tokenizers_own_is_noted(make_config, write, tokenizer):
    tokenizer.chat_template = jinja.PLAIN
    write([{"instruction": "Q", "output": "A"}])
    told = {}
    for name in ("chatml", "smollm2"):
        report = prepare(make_config(template=name), with_end(tokenizer)).report
        told[name] = [note for note in report.template_notes if "otherwise" in note]
    assert told["chatml"] == []
    (note,) = told["smollm2"]
    assert note.startswith(
        "The template smollm2 writes a conversation otherwise than the tokenizer's own: '<|im_start|>sy"
    )
    assert "where that has '<|im_start|>user" in note


def test_a_template_that_writes_the_date_is_found(check):
    assert not check(jinja.PLAIN).varies_by_day
    dated = "{%- macro day() -%}{{ strftime_now('%Y') }}{%- endmacro -%}{{ day() }}" + jinja.PLAIN
    assert check(dated).varies_by_day
    assert check("{% set unused = strftime_now('%Y') %}" + jinja.PLAIN).varies_by_day is False


def warnings_of(run):
    return [event for event in RunReader(run.folder).events() if event["type"] == "warning"]


def test_fields_of_a_conversation():
    answers = {"role": "assistant", "content": "", "tool_calls": [CALL], "weight": 1, "note": "", "thinking": "x"}
    rejected = {"role": "assistant", "content": "B", "cot": "y"}
    turns = ({"role": "system", "content": "S"}, {"role": "user", "content": "Q", "name": "Ann"}, answers)
    found = set(fields_of(Conversation(turns, ({"function": {"name": "add"}},), rejected=rejected)))
    assert found == {TOOLS, SYSTEM, CALLS, ("user", "name"), ("assistant", "thinking"), ("assistant", "cot")}


def test_a_dropped_field_is_one_warning_of_the_run_and_a_rename_in_inspect(make_config, write, tokenizer):
    tokenizer.chat_template = READS_REASONING
    write(
        [
            {"messages": THINKING},
            {"messages": json.dumps(THINKING)},
            {"messages": [THINKING[0], {"role": "assistant", "content": "B"}]},
        ]
    )
    run = RunWriter(create_run("dataset: data.jsonl\n", "named"), 1)
    ready = prepare(make_config(), tokenizer, run=run)
    again = prepare(make_config(), tokenizer, run=run)
    assert again.report.cached
    warnings = warnings_of(run)
    assert [one["key"] for one in warnings] == ["template", "template"]
    assert "never renders the field `thought` of assistant messages" in warnings[0]["message"]
    assert ready.report.template_warnings == again.report.template_warnings
    assert "never renders: `id`." in ready.report.text()

    overview = Inspection.open(make_config(), tokenizer).overview()
    assert overview["renames"] == {"thought": "reasoning_content"}
    renamed = make_config(rename_fields=overview["renames"])
    overview = Inspection.open(renamed, tokenizer).overview()
    assert overview["renames"] == {}
    assert overview["template_warnings"] == []
    shown = [one.text() for one in prepare(renamed, tokenizer).report.preview]
    assert all("⟦<think>Hm.</think>A<|im_end|>" in one for one in shown[:2])
    assert "⟦B<|im_end|>" in shown[2]


def test_a_streamed_data_set_is_checked_before_the_first_step(make_config, write, tokenizer):
    tokenizer.chat_template = jinja.PLAIN
    write([{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A", "thinking": "Hm."}]}])
    config = make_config(streaming=True, max_steps=1)
    run = RunWriter(create_run("dataset: data.jsonl\n", "streamed"), 1)
    prepare(config, tokenizer, run=run)
    (warning,) = warnings_of(run)
    assert "It renders no field with reasoning" in warning["message"]


def test_only_messages_are_renamed():
    row = {"messages": [{"a": 1, "role": "user"}, {"a": 2, "b": 3}, {"a": None}, 7], "tools": [{"a": 1}], "n": {"a": 1}}
    found = rename_fields(row, {"messages": "messages", "tools": "tools"}, {"a": "b"}, OPENAI.tags)
    assert found == row | {"messages": [{"b": 1, "role": "user"}, {"b": 3}, {}, 7]}
    assert row["messages"][0] == {"a": 1, "role": "user"}
    columns = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
    odd = {"messages": "[{", "chosen": '{"a": 1}', "rejected": '[{"a": 1}]'}  # answers in JSON
    assert rename_fields(odd, columns, {"a": "b"}, OPENAI.tags) == odd
    said = {"messages": '[{"role": "user", "a": 1}]', "chosen": '{"role": "assistant", "a": 1}', "rejected": "No."}
    found = rename_fields(said, columns, {"a": "b"}, OPENAI.tags)
    assert found["messages"] == [{"role": "user", "b": 1}]
    assert (found["chosen"], found["rejected"]) == ({"role": "assistant", "b": 1}, "No.")
    assert rename_fields({"prompt": '{"a": 1}'}, {"prompt": "prompt"}, {"a": "b"}, {}) == {"prompt": '{"a": 1}'}
