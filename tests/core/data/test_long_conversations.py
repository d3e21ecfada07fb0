"""Conversations of a size that nobody trains on: a record with a reason, in seconds, and the template not blamed."""

import pytest

from llf_core.data.answer_ranges import render_all
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import Conversation
from llf_core.data.errors import BadExample
from tests.tiny import tiny_tokenizer


def conversation(turns: int, size: int) -> Conversation:
    roles = ("user", "assistant")
    return Conversation(tuple({"role": roles[turn % 2], "content": "a" * size} for turn in range(turns)))


@pytest.mark.parametrize(("turns", "size"), [(40_000, 1), (300, 30_000)])
@pytest.mark.parametrize("name", [None, "qwen3"])
def test_what_is_rendered_again_for_each_answer_is_bounded(name, turns, size):
    tokenizer = tiny_tokenizer()
    template = choose_template(name, tokenizer)
    with pytest.raises(BadExample, match=f"it has {turns:,} turns and .* split it into shorter conversations"):
        list(render_all(template, tokenizer, conversation(turns, size)))
    assert list(render_all(template, tokenizer, conversation(40, 10)))


def test_a_record_of_millions_of_characters_is_its_own_fault():
    tokenizer = tiny_tokenizer()
    with pytest.raises(BadExample, match="it has 40,000,002 characters, expected at most 40,000,000; split it"):
        list(render_all(choose_template(None, tokenizer), tokenizer, conversation(2, 20_000_001)))
