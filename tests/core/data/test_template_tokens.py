"""The token that ends responses is looked for in the tokenizer's files, and found where the tokenizer has it."""

import json

import pytest

from llf_core.config.chat_templates import template_names
from llf_core.data.chat_template import choose_template
from llf_core.data.errors import DataError
from llf_core.data.precheck import template_problems
from llf_core.data.template_facts import NO_CHAT_TEMPLATE, why_never_ends_here
from llf_core.data.templates import named_template


@pytest.fixture
def folder(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


@pytest.fixture
def config(make_config, write, folder):
    file = write([{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}])
    return lambda **keys: make_config(str(file), model_name_or_path=str(folder), **keys)


def test_the_files_answer_as_the_tokenizer_does(config, folder, tiny_tokenizer):
    told = {}
    for name in template_names():
        try:
            choose_template(name, tiny_tokenizer)
            told[name] = ""
        except DataError as error:
            told[name] = error.message
    assert {name: why_never_ends_here(config(template=name), folder) for name in template_names()} == told
    assert told["chatml"] == ""
    assert told["llama3"].startswith("The template llama3 ends responses with <|eot_id|>, which is not a token of this")
    assert "Matching templates: " in told["llama3"]
    assert "chatml" in told["llama3"]


def test_it_is_an_error_beside_the_template_with_what_mends_it(config):
    (problem,) = template_problems(config(template="llama3"))
    assert (problem.severity, problem.key) == ("error", "template")
    own, added = (dict(fix.changes) for fix in problem.fixes)
    assert own == {"template": None}
    assert added == {"resize_vocab": True}
    assert template_problems(config(template="llama3", **added)) == ()
    assert template_problems(config(**own)) == ()
    assert template_problems(config(template="llama3", add_special_tokens="<|eot_id|>")) == ()
    assert template_problems(config(template="llama3", stage="pt", dataset_format="text")) == ()


def test_a_tokenizer_that_gets_tokens_elsewhere_is_not_judged(config, folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert template_problems(config(template="llama3", use_fast_tokenizer=False)) == ()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"auto_map": {"AutoTokenizer": ["a.B", None]}}))
    assert template_problems(config(template="llama3")) == ()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").unlink()
    assert template_problems(config(template="llama3")) == ()


def test_escaped_tokens_are_found(config, folder):
    """Hunyuan ends with a token of wide bars, which a file may write as escapes."""
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    assert template_problems(config(template="hunyuan_small")) != ()
    (folder / "tokenizer.json").write_text(text + json.dumps([named_template("hunyuan_small").end]), encoding="utf-8")
    assert template_problems(config(template="hunyuan_small")) == ()


def test_a_model_without_a_chat_template_needs_a_named_one(config, folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": None}))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (problem,) = template_problems(config())
    assert (problem.severity, problem.key, problem.message) == ("error", "template", NO_CHAT_TEMPLATE)
    assert template_problems(config(template="chatml")) == ()
