"""The Go template of a `Modelfile`, run by a small interpreter, gives what the chat template renders."""

import json
import re

import pytest
from transformers import AutoTokenizer

from llf_core.data.templates import named_template
from llf_core.export.ollama import CALL, TOOLS, modelfile

TAG = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)


def parse(parts, at=0):
    """A list of texts, values and blocks, up to an `else` or `end`, and where it stopped. Odd parts are tags."""
    found = []
    while at < len(parts):
        part = parts[at]
        if at % 2 == 0:
            found.append(part)
        elif part.startswith(("else", "end")):
            return found, at
        elif part.startswith(("if ", "range ")):
            branches, condition = [], part
            while not condition.startswith("end"):
                body, at = parse(parts, at + 1)
                branches.append((condition.removeprefix("else "), body))
                condition = parts[at]
            found.append(branches)
        else:
            found.append((part,))
        at += 1
    return found, at


def value(name, scope):
    for part in name.strip(".").split("."):
        scope = scope[part] if part else scope
    return scope if isinstance(scope, str | list) else json.dumps(scope, ensure_ascii=False)


def holds(condition, scope):
    kind, _, rest = condition.partition(" ")
    if kind == "else":
        return True
    if rest.startswith("eq "):
        name, wanted = rest.removeprefix("eq ").split(" ", 1)
        return value(name, scope) == json.loads(wanted)
    return all(value(name, scope) for name in rest.removeprefix("and ").split())


def run(tree, scope):
    text = ""
    for part in tree:
        if isinstance(part, str):
            text += part
        elif isinstance(part, tuple):
            text += value(part[0], scope)
        elif part[0][0].startswith("range "):
            text += "".join(run(part[0][1], one) for one in value(part[0][0].removeprefix("range "), scope))
        else:
            text += next((run(body, scope) for condition, body in part if holds(condition, scope)), "")
    return text


def go(template, messages, tools):
    """What Ollama's template engine makes of messages: system messages are `.System`, all are in `.Messages`."""
    named = [
        {
            "Role": one["role"],
            "Content": one["content"],
            "ToolCalls": [
                {"Function": {"Name": call["function"]["name"], "Arguments": call["function"]["arguments"]}}
                for call in one.get("tool_calls", ())
            ],
        }
        for one in messages
    ]
    system = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    return run(parse(TAG.split(template))[0], {"System": system, "Messages": named, "Tools": tools})


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "What is it?"},
]
CALLED = [
    {"role": "user", "content": "Look it up."},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "It is there."},
]


@pytest.mark.parametrize(("name", "tools"), [("chatml", False), ("llama3", False), ("gemma", False), ("qwen3", True)])
def test_the_go_template_renders_as_the_chat_template(tiny_model_dir, name, tools):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = named_template(name).jinja(space=False)
    text = modelfile("./model.gguf", tokenizer, [2, 0], generation={"temperature": 0.6, "top_k": 20}, context=32768)
    template = re.search(r'TEMPLATE """(.*?)"""', text, re.DOTALL)[1]
    tried = [(CONVERSATION, None), (CONVERSATION[1:], None)]
    tried += [(CALLED, TOOLS), (CONVERSATION, TOOLS), ([CONVERSATION[0], *CALLED], TOOLS)] if tools else []
    for messages, given in tried:
        expected = tokenizer.apply_chat_template(messages, tools=given, add_generation_prompt=True, tokenize=False)
        assert go(template, messages, given or []) == expected
    assert ("{{ range .Tools }}" in template) is tools
    before, after = text.split(f'TEMPLATE """{template}"""\n')
    assert before.splitlines()[1:] == ["FROM ./model.gguf"]
    assert after.splitlines() == [
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<|endoftext|>"',
        "PARAMETER temperature 0.6",
        "PARAMETER top_k 20",
        "PARAMETER num_ctx 4096",
    ]


def test_a_template_of_another_kind_is_left_out(tiny_model_dir):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = "{% for m in messages %}{{ loop.index }}{{ m['role'] }}{{ m['content'] }}{% endfor %}"
    text = modelfile(".", tokenizer, [2], generation={"do_sample": False}, context=512)
    assert "TEMPLATE" not in text
    assert "no exact equivalent" in text
    assert "PARAMETER temperature 0\nPARAMETER num_ctx 512" in text


def test_a_text_that_would_open_a_value_of_go_is_left_out(tiny_model_dir):
    """`{` before a content would give `{{{ .Content }}`, which Go cannot read."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + '{' + m['content'] + '}' }}{% endfor %}{{ 'assistant{' }}"
    )
    text = modelfile(".", tokenizer, [], generation={}, context=None)
    assert "TEMPLATE" not in text
    assert "no exact equivalent" in text


def test_a_stop_without_a_text_is_left_out(tiny_model_dir):
    """An empty stop would end each answer at once: an id that a generation config names beyond the vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    beyond = len(tokenizer) + 5
    assert not tokenizer.decode([beyond])
    text = modelfile(".", tokenizer, [2, beyond], generation={}, context=None)
    assert [line for line in text.splitlines() if line.startswith("PARAMETER stop")] == ['PARAMETER stop "<|im_end|>"']
