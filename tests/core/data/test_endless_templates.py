"""A chat template that never ends, or fills the memory, is refused after some steps; others are the same."""

import pytest
from jinja2.exceptions import TemplateError

from llf_core.data import DataError, prepare
from llf_core.data.chat_template import choose_template
from llf_core.models import bounded_templates as bounded
from llf_core.models.bounded_templates import limit_templates

ROWS = [{"instruction": "Hi", "output": "Yo"}]
SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
END = "{{ messages[0]['content'] }}"
DOUBLED = "{%% set n = namespace(s=%s) %%}{%% for i in range(99) %%}{%% set n.s = %s %%}{%% endfor %%}"
TWICE = "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}"
ENDLESS = {
    "two loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{% for i in range(9) %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": TWICE,
    "a loop that calls itself": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "a text that doubles": DOUBLED % ("'x'", "n.s + n.s"),
    "a text that doubles by ~": DOUBLED % ("'x'", "n.s ~ n.s"),
    "a text that is multiplied": "{{ 'x' * 99999999999 }}",
    "a list that is multiplied": "{{ ([0] * 99999999999) | length }}",
    "a power": "{{ 10 ** (10 ** 9) }}",
    "a number that squares": DOUBLED % ("7", "n.s * n.s"),
    "a text that is replaced": DOUBLED % ("'x'", "n.s | replace('x', 'xx')"),
    "a text that is replaced by a method": DOUBLED % ("'x'", "n.s.replace('x', 'xx')"),
    "a width": "{{ '%999999999d' | format(1) }}",
    "a width of %": "{{ '%999999999d' % 1 }}",
    "a width that is an argument": "{{ '%*d' % (999999999, 1) }}",
    "a width of format": "{{ '{:>999999999}'.format(1) }}",
    "a width that format takes": "{{ '{:>{}}'.format(1, 999999999) }}",
    "a place for each sign": "{{ ('{0}' * 99999).format('x' * 99999) }}",
    "a text in the middle": "{{ 'x' | center(9999999999) }}",
    "a text at the left": "{{ 'x'.ljust(9999999999) }}",
    "zeros": "{{ 'x'.zfill(9999999999) }}",
    "tabs": "{{ '\t'.expandtabs(9999999999) }}",
    "bytes of a number": "{{ (1).to_bytes(9999999999, 'big') }}",
    "lines that are indented": "{{ ('x\n' * 9999) | indent(999999) }}",
    "an indentation of JSON": "{{ messages | tojson(indent=999999999) }}",
    "a list in parts": "{{ [1] | batch(999999999, 'x') | list }}",
    "a list in slices": "{{ [1] | slice(999999999, 'x') | list }}",
    "a text that is joined": "{{ range(99999) | join('x' * 99999) }}",
    "a text that joins": "{{ ('x' * 99999).join(['x'] * 99999) }}",
    "signs that are translated": "{{ ('x' * 99999).translate({120: 'x' * 99999}) }}",
    "lists that are added up": "{{ [[1] * 9999] * 9999 | sum(start=[]) }}{{ ([[1] * 999] * 999) | sum(start=[]) }}",
    "a list of itself": DOUBLED % ("[1, 2]", "[n.s, n.s]") + "{{ n.s | string }}",
    "a list of itself that is compared": DOUBLED % ("[1]", "[n.s, n.s]") + "{{ n.s == [n.s] }}",
    "a long text again and again": "{% set x = 'x' * 9999999 %}{% for i in range(999) %}{{ x }}{% endfor %}",
    "a template that is long": "{{ 1 }}" * 50_000,
}
REFUSED = r"exceeds its limits: it .*set template\.|maximum recursion depth exceeded"


@pytest.mark.parametrize("name", ENDLESS)
def test_it_is_refused_with_a_sentence(name, make_config, write, tokenizer, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_STEPS", 50_000)
    tokenizer.chat_template = ENDLESS[name] + END
    write(ROWS)
    with pytest.raises(DataError, match=REFUSED):
        prepare(make_config(), tokenizer)
    with pytest.raises((TemplateError, RecursionError)):
        tokenizer.apply_chat_template(SAID, tokenize=False)


def test_what_takes_its_time_in_one_step_is_refused_too(make_config, write, tokenizer, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_SECONDS", 0.05)
    tokenizer.chat_template = "{% set r = range(99999) | list %}{% for i in r %}{% set s = r | sum %}{% endfor %}" + END
    write(ROWS)
    with pytest.raises(DataError, match=r"takes more than 0\.05 s"):
        prepare(make_config(), tokenizer)


def test_a_long_conversation_is_none_of_it(tokenizer):
    said = SAID * 2000
    plain = tokenizer.apply_chat_template(said, tokenize=False)
    limit_templates()
    assert tokenizer.apply_chat_template(said, tokenize=False) == plain
    words = "{{ m.role ~ ': ' ~ m.content ~ 1 ~ none }}"
    tokenizer.chat_template = "{% for m in messages %}{% for n in range(40) %}{% endfor %}" + words + "{% endfor %}"
    assert tokenizer.apply_chat_template(said, tokenize=False) == "user: Hi1Noneassistant: Yo1None" * 2000


def test_marks_of_generation_are_found_as_before(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ':' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content ~ '!' }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
    )
    choose_template(None, tokenizer)
    found = tokenizer.apply_chat_template(SAID, return_dict=True, return_assistant_tokens_mask=True)
    learned = [one for one, mask in zip(found["input_ids"], found["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(learned) == "Yo!"


def test_arguments_by_their_names_are_taken(tiny_tokenizer):
    limit_templates()
    template = "{{ 'a\\tb'.expandtabs(tabsize=4) }}"
    assert tiny_tokenizer.apply_chat_template(SAID, tokenize=False, chat_template=template) == "a   b"
