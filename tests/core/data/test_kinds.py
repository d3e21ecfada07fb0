"""Preference pairs, judged answers, prompts and plain texts become tokens."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llf_core.config.data import IGNORED
from llf_core.data.align import Reading
from llf_core.data.build import TRAIN, Builder, EncodingSettings, ProgressReporter
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import PAIRS, PROMPTS, TEXTS, UNPAIRED
from llf_core.data.encoder import Encoder
from llf_core.data.example_store import open_examples
from llf_core.data.load import open_source
from llf_core.data.preparation import template_of
from llf_core.data.records import Record
from llf_core.data.sources import find_sources
from llf_core.data.truncation import truncated_lengths
from tests.core.data import templates as jinja
from tests.core.data.conftest import listed

READINGS = {
    PAIRS: Reading("alpaca", {"prompt": "q", "chosen": "chosen", "rejected": "rejected"}, {}, "a test", PAIRS),
    UNPAIRED: Reading("alpaca", {"prompt": "q", "response": "a", "kto_tag": "good"}, {}, "a test", UNPAIRED),
    PROMPTS: Reading("alpaca", {"prompt": "q"}, {}, "a test", PROMPTS),
    TEXTS: Reading("text", {"prompt": "text"}, {}, "a test", TEXTS),
}
words = st.lists(st.sampled_from(["the", "sea", "ship", "a"]), min_size=1, max_size=30).map(" ".join)


def encode(tokenizer, template, kind, rows, cutoff=10**6, **options):
    encoder = Encoder(tokenizer, template, READINGS[kind], cutoff, kind=kind, **options)
    return listed(encoder.encode([Record(index, row) for index, row in enumerate(rows)]))


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def test_a_pair_has_two_answers_after_one_question(tiny_tokenizer, own):
    row = {"q": "Hi", "chosen": "Yo", "rejected": "Go away"}
    (pair,) = encode(tiny_tokenizer, own(jinja.PLAIN), PAIRS, [row]).examples
    prompt = ids(tiny_tokenizer, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    for found, labels, answer in (
        (pair.ids, pair.labels, "Yo"),
        (pair.more["rejected_ids"], pair.more["rejected_labels"], "Go away"),
    ):
        said = ids(tiny_tokenizer, f"{answer}<|im_end|>\n")
        assert found == prompt + said
        assert labels == [IGNORED] * len(prompt) + said
    assert pair.learned == len(ids(tiny_tokenizer, "Yo<|im_end|>\nGo away<|im_end|>\n"))


@given(question=words, chosen=words, rejected=words, cutoff=st.integers(2, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_pair_is_cut_alike_on_both_sides(tiny_tokenizer, own, question, chosen, rejected, cutoff):
    rows = [{"q": question, "chosen": chosen, "rejected": f"{rejected} no"}]
    if rows[0]["chosen"] == rows[0]["rejected"]:
        return
    whole = encode(tiny_tokenizer, own(jinja.PLAIN), PAIRS, rows).examples[0]
    chunk = encode(tiny_tokenizer, own(jinja.PLAIN), PAIRS, rows, cutoff)
    if chunk.dropped:
        said = chunk.dropped[0][1]
        assert "leaves no room for its response" in said or "identical after truncation" in said
        return
    (pair,) = chunk.examples
    sides = [(pair.ids, pair.labels), (pair.more["rejected_ids"], pair.more["rejected_labels"])]
    starts = [next(place for place, label in enumerate(labels) if label != IGNORED) for _, labels in sides]
    assert starts[0] == starts[1]
    assert pair.ids[: starts[0]] == pair.more["rejected_ids"][: starts[0]]
    closing = ids(tiny_tokenizer, "<|im_end|>\n")
    for found, labels in sides:
        assert len(found) <= cutoff
        assert found[-len(closing) :] == closing
        assert found[starts[0] :] == labels[starts[0] :]
    start = next(place for place, label in enumerate(whole.labels) if label != IGNORED)
    longest = max(len(whole.ids), len(whole.more["rejected_ids"])) - start
    if start + longest > cutoff:
        opening = len(ids(tiny_tokenizer, "<|im_end|>\n<|im_start|>assistant\n"))
        assert starts[0] == max(truncated_lengths(start, longest, cutoff)[0], opening)


def test_a_pair_whose_answers_are_the_same_once_they_are_cut_is_left_out(tiny_tokenizer, own):
    begin = "It is a long way to the sea and back again, "
    rows = [{"q": "Hi", "chosen": begin * 3 + "yes", "rejected": begin * 3 + "no"}]
    assert len(encode(tiny_tokenizer, own(jinja.PLAIN), PAIRS, rows, 400).examples) == 1
    chunk = encode(tiny_tokenizer, own(jinja.PLAIN), PAIRS, rows, 40)
    assert chunk.examples == []
    assert "its two responses are identical after truncation" in chunk.dropped[0][1]


def test_pairs_that_are_too_long_can_be_dropped(tiny_tokenizer, own):
    rows = [{"q": "Hi", "chosen": "Yo", "rejected": "the sea " * 30}]
    chunk = encode(tiny_tokenizer, own(jinja.PLAIN), PAIRS, rows, 40, cutoff_strategy="drop")
    assert chunk.examples == []
    assert "more than cutoff_len 40" in chunk.dropped[0][1]


def test_a_judged_answer_carries_its_mark(tiny_tokenizer, own):
    rows = [{"q": "Hi", "a": "Yo", "good": True}, {"q": "Hi", "a": "Go", "good": False}]
    found = encode(tiny_tokenizer, own(jinja.PLAIN), UNPAIRED, rows).examples
    assert [one.more for one in found] == [{"good": True}, {"good": False}]
    assert tiny_tokenizer.decode([label for label in found[0].labels if label != IGNORED]) == "Yo<|im_end|>\n"


def test_a_prompt_ends_where_an_answer_begins(tiny_tokenizer, own):
    (short, long) = encode(
        tiny_tokenizer, own(jinja.PLAIN), PROMPTS, [{"q": "Hi"}, {"q": "the sea " * 30}], 40
    ).examples
    assert tiny_tokenizer.decode(short.ids) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert (short.learned, short.cut) == (0, 0)
    assert len(long.ids) == 40
    assert long.cut > 0
    assert tiny_tokenizer.decode(long.ids).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_prompt_is_tokenized_as_before_an_answer(tokenizer):
    template = choose_template("alpaca", tokenizer)
    (prompt,) = encode(tokenizer, template, PROMPTS, [{"q": "Hi"}]).examples
    row = {"q": "Hi", "a": "Yo", "good": True}
    (whole,) = encode(tokenizer, template, UNPAIRED, [row]).examples
    assert whole.ids[: len(prompt.ids)] == prompt.ids
    assert whole.labels[len(prompt.ids)] != IGNORED


@given(texts=st.lists(words, min_size=1, max_size=4), size=st.integers(2, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_texts_become_blocks_that_lose_no_tail(tiny_tokenizer, own, texts, size):
    found = encode(tiny_tokenizer, own(jinja.PLAIN), TEXTS, [{"text": text} for text in texts], size).examples
    for index, text in enumerate(texts):
        blocks = [one for one in found if one.index == index]
        whole = ids(tiny_tokenizer, text + tiny_tokenizer.eos_token)
        assert [token for one in blocks for token in one.ids] == whole
        assert [len(one.ids) for one in blocks[:-1]] == [size] * (len(blocks) - 1)
        assert all(one.labels == one.ids for one in blocks)


@pytest.mark.parametrize("kind", [PAIRS, UNPAIRED, PROMPTS, TEXTS])
def test_a_row_that_says_nothing_is_named(tiny_tokenizer, own, kind):
    row = {"q": "", "a": "", "chosen": "a", "rejected": "b", "good": True, "text": ""}
    chunk = encode(tiny_tokenizer, own(jinja.PLAIN), kind, [row])
    assert chunk.examples == []
    assert chunk.dropped[0][0] == 0


@pytest.mark.parametrize(
    ("kind", "row", "columns"),
    [
        (PAIRS, {"prompt": "Hi", "chosen": "Yo", "rejected": "Go"}, ["rejected_ids", "rejected_labels"]),
        (UNPAIRED, {"prompt": "Hi", "completion": "Yo", "label": True}, ["good"]),
        (PROMPTS, {"prompt": "Hi"}, []),
        (TEXTS, {"text": "Once upon a time"}, []),
    ],
)
def test_a_set_of_each_kind_is_prepared(make_config, write, tokenizer, tmp_path, kind, row, columns):
    path = write([row, row])
    config = make_config()
    (opened,) = [open_source(source) for source in find_sources([str(path)], tmp_path)]
    made = replace(EncodingSettings.of(config), kind=kind)
    Builder(made, tokenizer, template_of(config, tokenizer), ProgressReporter(None, None)).build(tmp_path, [opened], [])
    examples, counts = open_examples(tmp_path / TRAIN)
    assert examples.column_names == ["input_ids", "labels", "index", "number", *columns]
    assert len(examples) == len(counts) == 2
    assert examples[0]["input_ids"] == examples[1]["input_ids"]
    if kind == UNPAIRED:
        assert examples["good"][0] is True
