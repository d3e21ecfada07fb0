"""`cutoff_len`: what is kept, by tables and by properties."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llf_core.config.labels import IGNORED
from llf_core.data.align import Reading
from llf_core.data.cut import cut, cut_lengths, learned
from llf_core.data.encoder import Encoder
from llf_core.data.errors import BadExample
from llf_core.data.mask import Tokens, Turn
from llf_core.data.records import Record
from tests.core.data import templates as jinja


@pytest.mark.parametrize(
    ("source", "target", "cutoff", "kept"),
    [
        (3000, 2000, 1000, (500, 500)),
        (2000, 3000, 1000, (500, 500)),
        (1000, 100, 1000, (900, 100)),
        (100, 1000, 1000, (100, 900)),
        (500, 501, 1000, (500, 500)),
        (10, 10, 1000, (10, 10)),
        (0, 7, 5, (0, 5)),
        (7, 0, 5, (5, 0)),
        (9, 9, 5, (2, 3)),
        (1100, 50_000, 2048, (1024, 1024)),
    ],
)
def test_the_table_of_lengths(source, target, cutoff, kept):
    assert cut_lengths(source, target, cutoff) == kept


@given(source=st.integers(0, 200), target=st.integers(0, 200), cutoff=st.integers(2, 150))
def test_lengths_fill_the_room_and_no_more(source, target, cutoff):
    kept = cut_lengths(source, target, cutoff)
    assert sum(kept) == min(cutoff, source + target)
    assert kept[0] >= min(source, cutoff // 2)
    assert kept[1] >= min(target, cutoff - cutoff // 2)


def tokens(*lengths, answers=(1,)):
    """Tokens numbered from 0; stretches at odd places are answers."""
    ids = list(range(sum(lengths)))
    labels, turns, place = [], [], 0
    for number, length in enumerate(lengths):
        stretch = ids[place : place + length]
        labels += stretch if number % 2 else [IGNORED] * length
        turns += [Turn(place, place + length)] if number % 2 else []
        place += length
    return Tokens(ids, labels, tuple(turns))


@pytest.mark.parametrize(
    ("lengths", "cutoff", "opening", "ids"),
    [
        ((4, 4), 8, 2, [0, 1, 2, 3, 4, 5, 6, 7]),  # nothing to do
        ((6, 2), 6, 2, [0, 1, 4, 5, 6, 7]),  # the question gives way, before its opening
        ((2, 6), 6, 2, [0, 1, 2, 3, 4, 5]),  # the answer gives way, at its end
        ((6, 6), 6, 2, [0, 4, 5, 6, 7, 8]),  # both
        ((6, 6), 4, 3, [3, 4, 5, 6]),  # all that is left is the opening and a token
        ((3, 2, 3, 4), 10, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),  # a later answer loses its end
        ((3, 2, 3, 4), 8, 1, [0, 1, 2, 3, 4]),  # … or goes with its question
        ((3, 2, 3, 4, 1, 1), 7, 1, [0, 1, 2, 3, 4]),
    ],
)
def test_the_table_of_cuts(lengths, cutoff, opening, ids):
    whole = tokens(*lengths)
    short = cut(whole, cutoff, opening)
    assert short.ids == ids
    assert short.labels == [whole.labels[place] for place in ids]
    for turn in short.turns:
        assert IGNORED not in short.labels[turn.start : turn.end]
        assert turn.end <= len(short.ids)


def test_no_room_for_an_answer_is_a_reason():
    with pytest.raises(BadExample, match="cutoff_len 3 leaves no room for its answer"):
        cut(tokens(6, 6), 3, opening=3)


def test_the_first_label_teaches_nothing():
    assert learned([5, 6, IGNORED, 7]) == 2
    assert learned([5]) == 0


def encoder(tokenizer, template, cutoff, **options):
    reading = Reading("openai", {"messages": "messages"}, {}, "a test")
    return Encoder(tokenizer, template, reading, cutoff, **options)


def encode(made, conversation):
    chunk = made.encode([Record(7, {"messages": list(conversation.messages)})])
    assert len(chunk.digests) == 1
    return chunk


words = st.lists(st.sampled_from(["the", "sea", "assistant", "a", "<|im_end|", "\n"]), min_size=1, max_size=30)
said = words.map(" ".join).filter(lambda text: text.strip() != "")


@given(question=said, answer=said, system=st.none() | said, cutoff=st.integers(2, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_header_of_an_answer_is_never_cut(tiny_tokenizer, own, talk, question, answer, system, cutoff):
    conversation = talk(question, answer, system=system)
    template = own(jinja.PLAIN)
    chunk = encode(encoder(tiny_tokenizer, template, cutoff), conversation)
    whole = encode(encoder(tiny_tokenizer, template, 10**6), conversation).examples[0]
    if chunk.dropped:
        assert chunk.examples == []
        assert chunk.dropped[0][0] == 7
        return
    (example,) = chunk.examples
    opening = tiny_tokenizer("<|im_end|>\n<|im_start|>assistant\n").input_ids
    start = next(place for place, label in enumerate(example.labels) if label != IGNORED)
    assert len(example.ids) == min(cutoff, len(whole.ids))
    assert example.cut == len(whole.ids) - len(example.ids)
    assert example.ids[start - len(opening) : start] == opening
    assert example.ids[start:] == example.labels[start:]
    learned_whole = [label for label in whole.labels if label != IGNORED]
    assert example.ids[start:] == learned_whole[: len(example.ids) - start]
    head = example.ids[: start - len(opening)]
    assert head == whole.ids[: len(head)]


def test_with_mask_history_the_oldest_exchanges_go_first(tiny_tokenizer, own, talk):
    template = own(jinja.PLAIN)
    whole = talk("one two three", "four", "five six", "seven", "eight", "nine", system="S")
    shorter = talk("five six", "seven", "eight", "nine", system="S")
    room = len(encode(encoder(tiny_tokenizer, template, 10**6), shorter).examples[0].ids)
    (example,) = encode(encoder(tiny_tokenizer, template, room, mask_history=True), whole).examples
    text = tiny_tokenizer.decode(example.ids)
    assert text == tiny_tokenizer.apply_chat_template(list(shorter.messages), chat_template=jinja.PLAIN, tokenize=False)
    assert tiny_tokenizer.decode([label for label in example.labels if label != IGNORED]) == "nine<|im_end|>\n"
    assert example.cut == len(encode(encoder(tiny_tokenizer, template, 10**6), whole).examples[0].ids) - room


def test_the_default_system_prompt_is_for_conversations_without_one(tiny_tokenizer, own, talk):
    made = encoder(tiny_tokenizer, own(jinja.DEFAULT_SYSTEM), 100, default_system="Rhyme.")
    without, given_one = (
        tiny_tokenizer.decode(encode(made, one).examples[0].ids) for one in (talk("Q", "A"), talk("Q", "A", system="S"))
    )
    assert without.startswith("<|im_start|>system\nRhyme.<|im_end|>\n<|im_start|>user")
    assert given_one.startswith("<|im_start|>system\nS<|im_end|>\n")
