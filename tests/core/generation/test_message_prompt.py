import re
from types import MappingProxyType

import pytest

from llf_core.chat.picture import with_checked_pictures
from llf_core.generation.text_stream import PromptError, render_messages
from tests.tiny import tiny_tokenizer

QUESTION = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "The last message is of the role None. Expected one of the assistant to continue."),
        ([QUESTION], "The last message is of the role user. Expected one of the assistant to continue."),
        (
            [QUESTION, {"role": "assistant", "content": "", "tool_calls": 5}],
            "tool_calls of message 2 is of type int. Expected a list.",
        ),
    ],
)
def test_what_cannot_be_continued_is_a_sentence(messages, message):
    with pytest.raises(PromptError) as error:
        render_messages(messages, tiny_tokenizer(), continue_last=True)
    assert str(error.value) == message


@pytest.mark.parametrize("kind", [[], {}, 5, None])
def test_a_part_whose_type_is_no_text_is_a_sentence(kind):
    messages = [{"role": "user", "content": [{"type": kind}]}]
    with pytest.raises(
        PromptError, match=re.escape(f"Message 1 has a part of type {kind}. Expected parts of type text")
    ):
        render_messages(messages, tiny_tokenizer())
    assert with_checked_pictures(messages) == messages


def test_a_message_may_be_any_mapping():
    tokenizer = tiny_tokenizer()
    assert render_messages([MappingProxyType(QUESTION)], tokenizer) == render_messages([QUESTION], tokenizer)
