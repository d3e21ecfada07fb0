"""`split_special_tokens`, compared with transformers' own reading of the same texts."""

import copy

import pytest

from llf_core.data.align import Reading
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import ANSWERS, TEXTS
from llf_core.data.encoder import Encoder
from llf_core.data.errors import DataError
from llf_core.data.records import Record
from llf_core.data.word_cache import splitting_tokenizer
from tests.tiny import END, START, STOP

WRITTEN = (f"the {STOP} sea", f"{START}system\nthe ship{STOP}{STOP}", f"a {END}", "the sea <|im_ and |>", "")
CHAT = Reading("openai", {"messages": "messages"}, {}, "a test", ANSWERS)
TEXT = Reading("text", {"prompt": "text"}, {}, "a test", TEXTS)


def encoded(tokenizer, reading, row, template="chatml", *, split=True, cutoff=10**6):
    encoder = Encoder(
        tokenizer, choose_template(template, tokenizer), reading, cutoff, kind=reading.kind, split_special_tokens=split
    )
    chunk = encoder.encode([Record(0, row)])
    return chunk.examples[0] if chunk.examples else chunk.dropped[0][1]


def as_text(tokenizer, text):
    """Transformers' reading of a text without special tokens."""
    found = copy.deepcopy(tokenizer)(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert not set(found) & set(tokenizer.all_special_ids)
    return found


@pytest.mark.parametrize("template", ["chatml", None])
@pytest.mark.parametrize("question", WRITTEN)
@pytest.mark.parametrize("answer", WRITTEN[:3])
def test_only_the_templates_special_tokens_are_left(tiny_tokenizer, template, question, answer):
    """As transformers reads each text; the loss begins with the answer and includes the template's end token."""
    row = {"messages": [{"role": "user", "content": question or "?"}, {"role": "assistant", "content": answer}]}
    example = encoded(tiny_tokenizer, CHAT, row, template)
    plain = [as_text(tiny_tokenizer, text) for text in ("user\n", question or "?", "\n", "assistant\n", answer)]
    begin, stop = tiny_tokenizer.bos_token_id, tiny_tokenizer.eos_token_id
    prompt = [begin, *plain[0], *plain[1], stop, *plain[2], begin, *plain[3]]
    whole = [*prompt, *plain[4], stop, *plain[2]]
    assert list(example.ids) == whole
    assert list(example.labels) == [-100] * len(prompt) + whole[len(prompt) :]
    if question == WRITTEN[0]:
        assert list(encoded(tiny_tokenizer, CHAT, row, template, split=False).ids) != whole


@pytest.mark.parametrize("text", WRITTEN[:4])
def test_plain_texts_end_with_the_end_of_sequence_alone(tiny_tokenizer, text):
    example = encoded(tiny_tokenizer, TEXT, {"text": text})
    assert list(example.ids) == [*as_text(tiny_tokenizer, text), tiny_tokenizer.eos_token_id]
    assert list(example.labels) == list(example.ids)


def test_the_models_tokenizer_stays_as_it_is(tiny_tokenizer):
    before = tiny_tokenizer.backend_tokenizer.to_str()
    splitting_tokenizer(tiny_tokenizer).pieces([STOP], [()])
    assert tiny_tokenizer.backend_tokenizer.to_str() == before
    assert tiny_tokenizer(STOP, add_special_tokens=False).input_ids == [tiny_tokenizer.eos_token_id]


def test_texts_that_cannot_be_split(tiny_tokenizer):
    assert "U+E004" in encoded(tiny_tokenizer, TEXT, {"text": "the\ue004sea"})

    class Slow:
        is_fast = False

    with pytest.raises(DataError, match="needs a fast tokenizer"):
        splitting_tokenizer(Slow())


def test_special_tokens_in_tools_and_names_of_arguments_are_text(tiny_tokenizer):
    call = {"type": "function", "function": {"name": "add", "arguments": {STOP: 1}}}
    row = {
        "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "tool_calls": [call]}],
        "tools": [{"name": "add", "description": f"Adds {STOP}", "parameters": {"properties": {STOP: {}}}}],
    }
    reading = Reading("openai", {"messages": "messages", "tools": "tools"}, {}, "a test", ANSWERS)
    plain = {**row, "tools": [{"name": "add"}], "messages": [row["messages"][0], {"role": "assistant", "content": "4"}]}
    stop = tiny_tokenizer.eos_token_id
    counts = [list(encoded(tiny_tokenizer, reading, one, "qwen").ids).count(stop) for one in (row, plain)]
    assert counts[0] == counts[1]


def test_a_call_with_a_special_token_is_never_cut_in_its_middle(tokenizer):
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]})
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": f"the sea {STOP} " * 20}}}
    row = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]}
    whole = encoded(tokenizer, CHAT, row, "qwen")
    reason = encoded(tokenizer, CHAT, row, "qwen", cutoff=len(whole.ids) - 3)
    assert isinstance(reason, str)
    assert "leaves no room for its response" in reason
