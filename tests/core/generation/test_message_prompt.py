import pytest

from llf_core.generation.message_prompt import PromptError, render_messages
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
