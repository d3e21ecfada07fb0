"""Responses that a template leaves without an end: compared with TRL's template for training, and what is not known."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from llf_core.data.answer_ranges import render_answers
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import Conversation
from llf_core.data.template_check import answer_suffix, template_check
from llf_core.data.templates import TOKEN

TRL = Path(importlib.util.find_spec("trl").submodule_search_locations[0]) / "chat_templates"
GLM, TRAINING = ((TRL / f"{name}.jinja").read_text(encoding="utf-8") for name in ("glm4moe", "glm4moe_training"))
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "find", "arguments": {"place": "Rome"}}}
TALK = [
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "There."},
    {"role": "user", "content": "Really?"},
    {"role": "assistant", "content": "Yes."},
]
CALLS = [
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
    {"role": "tool", "content": "Here."},
    {"role": "assistant", "content": "There."},
]
LAZY = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|q|>{{ m['content'] }}{% else %}<|a|>{{ m['content'] }}"
    "{% if not loop.last %}<|end|>{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}"
)


@pytest.fixture
def saved(tmp_path):
    """Saves a tokenizer with a template and the names of the model's end tokens, and loads it from its folder."""

    def save(jinja, *ends, file="generation_config.json"):
        words = Tokenizer(models.WordLevel({"?": 0}, "?"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        tokens = sorted({*TOKEN.findall(jinja)} - {"<|endoftext|>"})
        made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>", extra_special_tokens=tokens)
        made.chat_template = jinja
        made.save_pretrained(tmp_path)
        ids = made.convert_tokens_to_ids(["<|endoftext|>", *ends])
        (tmp_path / file).write_text(json.dumps({"eos_token_id": [*ids, 10**9]}))
        return PreTrainedTokenizerFast.from_pretrained(tmp_path)

    return save


@pytest.mark.parametrize("messages", [TALK, TALK[:2], CALLS], ids=["turns", "one", "calls"])
def test_glm_learns_what_trl_trains(saved, messages):
    tokenizer = saved(GLM, "<|user|>", "<|observation|>")
    template = choose_template(None, tokenizer)
    assert template.turn_ends == ("<|user|>", "<|observation|>")
    tools = [TOOL] if messages is CALLS else None
    rendered = render_answers(template, tokenizer, Conversation(tuple(messages), tools and tuple(tools)))
    (text,), (spans,) = render_jinja_template(
        [messages], tools=tools, chat_template=TRAINING, return_assistant_tokens_mask=True
    )
    assert rendered.text == text
    assert [rendered.text[slice(*one)] for one in rendered.answers] == [text[slice(*one)] for one in spans]
    assert template_check(template, tokenizer).stop == "<|user|>"


def test_a_token_counts_only_if_generation_ends_at_it(saved):
    tokenizer = saved(GLM)
    template = choose_template(None, tokenizer)
    assert template.turn_ends == ("", "")
    check = template_check(template, tokenizer)
    assert check.stop == ""
    assert "does not learn to stop" in check.warnings("own")[0]


def test_the_end_that_later_turns_write_is_written_after_the_last_one_too(saved):
    tokenizer = saved(LAZY, "<|end|>", file="config.json")
    template = choose_template(None, tokenizer)
    assert template.turn_ends == ("<|end|>", "<|end|>")
    rendered = render_answers(template, tokenizer, Conversation(tuple(TALK)))
    assert [rendered.text[slice(*one)] for one in rendered.answers] == ["There.<|end|>", "Yes.<|end|>"]
    assert answer_suffix(template, tokenizer, Conversation(tuple(TALK)), 3) == "<|end|>"
    assert template.end_ids(tokenizer) == [tokenizer.convert_tokens_to_ids("<|end|>")]
    ended = copy.copy(tokenizer)
    ended.chat_template = LAZY.replace("{% if not loop.last %}<|end|>{% endif %}", "<|end|>")
    assert choose_template(None, ended).turn_ends == ("", "")
