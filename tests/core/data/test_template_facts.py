"""The table of published chat templates: measured again where the installed TRL has the text."""

import importlib.util
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from llf_core.data import prepare
from llf_core.data.chat_template import choose_template
from llf_core.data.template_check import difference_from_own
from llf_core.data.template_facts import find_template, known_templates, own_template_of, sha256
from llf_core.data.template_page import main, measure, page
from llf_core.data.templates import TOKEN, named_template
from llf_core.model_catalog import known_models

FOLDER = Path(importlib.util.find_spec("trl").submodule_search_locations[0]) / "chat_templates"
HERE = {sha256(text): text for text in (path.read_text(encoding="utf-8") for path in FOLDER.glob("*.jinja"))}
MEASURED = ("stop", "next_turn", "rewrites", "dropped", "fails", "object_arguments", "date")

SHORT = {"deepseekv3", "gemma4_v5", "glm4moe", "gptoss", "lfm2", "muse_glimmer", "qwen3_6", "qwen3_8"}


def test_trl_has_the_texts_of_the_table():
    found = [one for one in known_templates().values() if one.sha256 in HERE]
    assert len(found) >= 35
    assert len({one.sha256 for one in known_templates().values()}) == len(known_templates())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in SHORT else pytest.mark.long)
        for name, one in known_templates().items()
        if one.sha256 in HERE
    ],
)
def test_a_template_does_what_the_table_says(name):
    facts = known_templates()[name]
    assert measure(HERE[facts.sha256]) == {key: getattr(facts, key) for key in MEASURED}


@pytest.mark.parametrize("name", [name for name, one in known_templates().items() if one.models])
def test_the_named_template_of_these_models_writes_otherwise(name):
    facts = known_templates()[name]
    found = {one.template for one in known_models() if one.template and own_template_of(one.id) is facts}
    assert found
    for template in found:
        tokens = {*TOKEN.findall(HERE[facts.sha256]), *named_template(template).tokens}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, "?")),
            bos_token="<s>",
            eos_token="</s>",
            extra_special_tokens=sorted(tokens),
        )
        tokenizer.chat_template = HERE[facts.sha256]
        assert difference_from_own(choose_template(template, tokenizer), tokenizer)


def test_the_page_is_the_table(tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs/chat_templates.md").read_text(encoding="utf-8")
    assert text == page(), "run: python -m llf_core.data.template_page docs/chat_templates.md"
    monkeypatch.setattr("sys.argv", ["template_page", str(tmp_path / "page.md")])
    assert main() == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == text


def test_a_template_is_known_by_its_text(make_config, write, tokenizer):
    text = next(iter(HERE.values()))
    assert find_template(text + "\n") == find_template(text)
    assert find_template(text + "x") is None
    tokenizer.chat_template = (FOLDER / "qwen2_5.jinja").read_text(encoding="utf-8")
    write([{"instruction": "Q", "output": "A"}])
    assert "The tokenizer's chat template is that of Qwen2.5." in prepare(make_config(), tokenizer).report.text()
