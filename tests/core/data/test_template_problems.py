"""Fields that the text of a chat template never mentions are a warning before a run, with a rename."""

import json

import pytest

from llf_core.data.precheck import template_problems
from llf_core.data.template_facts import own_template_text

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
READS_ONE = "{% for m in messages %}{{ m.reasoning_content }}{{ m['content'] }}{% endfor %}"


@pytest.fixture
def problems(make_config, write, tmp_path):
    """Problems of a config whose data has an answer with fields, and whose model has a template of its own."""

    def of(own=None, tools=None, base=None, **values):
        rows = [{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", **(base or {})}]}]
        write([rows[0] | ({"tools": tools} if tools else {})])
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "config.json").write_text("{}")
        (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps({"chat_template": own}))
        model = str(tmp_path / "model")
        return template_problems(make_config(str(tmp_path / "data.jsonl"), model_name_or_path=model, **values))

    return of


def test_a_named_template_reads_another_name(problems):
    (problem,) = problems(base={"thinking": "Hm."}, template="qwen3", rename_fields={"a": "b"})
    assert (problem.severity, problem.key) == ("warning", "dataset")
    assert "chat template (qwen3) never renders the field `thinking`" in problem.message
    (fix,) = problem.fixes
    assert fix.label == "Rename thinking to reasoning_content"
    assert dict(fix.changes) == {"rename_fields": {"a": "b", "thinking": "reasoning_content"}}
    assert problems(base={"thinking": "Hm."}, template="qwen3", rename_fields=fix.changes["rename_fields"]) == ()
    assert problems(base={"thinking": "Hm."}, template="chatml")[0].fixes == ()


def test_a_template_of_the_model_is_read_from_its_folder(problems, tmp_path):
    assert problems(READS_ONE, base={"thinking": "Hm."}) == ()  # transformers gives it under both names
    (problem,) = problems(READS_ONE, base={"cot": "Hm.", "id": "7", "weight": 1})
    assert dict(problem.fixes[0].changes) == {"rename_fields": {"cot": "reasoning_content"}}
    several = [{"name": "tool_use", "template": "m.cot"}, {"name": "default", "template": READS_ONE}]
    assert len(problems(several, base={"cot": "Hm."})) == 1
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ message.get('cot') }}")
    assert problems(READS_ONE, base={"cot": "Hm."}) == ()


def test_calls_and_tools_that_are_never_read(problems):
    found = problems(READS_ONE, tools=[CALL], base={"tool_calls": [CALL]})
    assert [one.message.split(" never renders ")[1].split(",")[0] for one in found] == [
        "the tools", "the field `tool_calls` of assistant messages",
    ]  # fmt: skip
    assert problems(tools=[CALL], base={"tool_calls": [CALL]}, template="qwen") == ()


@pytest.mark.parametrize("own", [7, [{"name": "other"}]])
def test_a_model_without_a_known_template_is_not_judged(problems, own):
    assert problems(own, base={"cot": "Hm."}) == ()


@pytest.mark.parametrize("name", [["default"], {"a": 1}, None, 1])
def test_a_template_whose_name_is_no_text_is_none(tmp_path, name):
    settings = {"chat_template": [{"name": name, "template": "a"}, "b", {"name": "default", "template": "c"}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert own_template_text(tmp_path) == "c"
