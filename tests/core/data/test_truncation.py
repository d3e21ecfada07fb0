"""`cutoff_len`: what is kept, by tables and by properties."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llf_core.config.data import IGNORED
from llf_core.data.align import Reading
from llf_core.data.build import encode_all
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import Conversation
from llf_core.data.encoder import Encoder
from llf_core.data.errors import BadExample
from llf_core.data.label_mask import Tokens, Turn
from llf_core.data.records import Record
from llf_core.data.truncation import count_trained, split_long, truncate, truncated_lengths
from tests.core.data import templates as jinja
from tests.core.data.conftest import listed


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
    assert truncated_lengths(source, target, cutoff) == kept


@given(source=st.integers(0, 200), target=st.integers(0, 200), cutoff=st.integers(2, 150))
def test_lengths_fill_the_room_and_no_more(source, target, cutoff):
    kept = truncated_lengths(source, target, cutoff)
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
    ("lengths", "cutoff", "opening", "closing", "ids"),
    [
        ((6, 2), 6, 2, 0, [0, 1, 4, 5, 6, 7]),  # the question gives way, before its opening
        ((2, 6), 6, 2, 0, [0, 1, 2, 3, 4, 5]),  # the answer gives way, at its end
        ((2, 6), 6, 2, 1, [0, 1, 2, 3, 4, 7]),  # … but for what closes it
        ((2, 6), 6, 2, 3, [0, 1, 2, 5, 6, 7]),
        ((6, 6), 6, 2, 0, [0, 4, 5, 6, 7, 8]),  # both
        ((6, 6), 6, 2, 2, [0, 4, 5, 6, 10, 11]),
        ((6, 6), 4, 3, 0, [3, 4, 5, 6]),  # all that is left is the opening and a token
        ((3, 2, 3, 4), 10, 1, 0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),  # a later answer loses its end
        ((3, 2, 3, 4), 10, 1, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 11]),
        ((3, 2, 3, 4), 9, 1, 1, [0, 1, 2, 3, 4]),  # … or goes with its question
        ((3, 2, 3, 4), 8, 1, 0, [0, 1, 2, 3, 4]),
        ((3, 2, 3, 4, 1, 1), 7, 1, 0, [0, 1, 2, 3, 4]),
        ((3, 2, 4), 6, 1, 1, [0, 1, 2, 3, 4, 5]),  # only what follows the last answer does not fit
    ],
)
def test_the_table_of_cuts(lengths, cutoff, opening, closing, ids):
    whole = tokens(*lengths)
    short = truncate(whole, cutoff, opening, closing)
    assert short.ids == ids
    assert short.labels == [whole.labels[place] for place in ids]
    for turn in short.turns:
        assert IGNORED not in short.labels[turn.start : turn.end]
        assert turn.end <= len(short.ids)


@pytest.mark.parametrize(("opening", "closing"), [(3, 0), (1, 2)])
def test_no_room_for_an_answer_is_a_reason(opening, closing):
    with pytest.raises(BadExample, match="cutoff_len 3 leaves no room for its response"):
        truncate(tokens(6, 6), 3, opening, closing)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=2, max_size=8).filter(lambda found: len(found) % 2 == 0),
    cutoff=st.integers(2, 30),
)
def test_split_learns_every_token_once_and_invents_none(lengths, cutoff):
    whole = tokens(*lengths)
    parts = split_long(whole, cutoff)
    met = [label for part in parts for label in part.labels if label != IGNORED]
    assert met == [label for label in whole.labels if label != IGNORED]
    for part in parts:
        assert len(part.ids) == len(part.labels) <= cutoff
        start = part.ids[0]
        assert part.ids == whole.ids[start : start + len(part.ids)]
        assert count_trained(part.labels)
        if start:
            assert part.labels[0] == IGNORED


def test_a_split_part_reads_what_came_before_it():
    parts = split_long(tokens(1, 9), 4)
    assert [part.ids for part in parts] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert [part.labels for part in parts] == [[IGNORED, 1, 2, 3], [IGNORED, 4, 5, 6], [IGNORED, 7, 8, 9]]


def test_the_first_label_teaches_nothing():
    assert count_trained([5, 6, IGNORED, 7]) == 2
    assert count_trained([5]) == 0


def encoder(tokenizer, template, cutoff, **options):
    reading = Reading("openai", {"messages": "messages"}, {}, "a test")
    return Encoder(tokenizer, template, reading, cutoff, **options)


def encode(made, conversation):
    chunk = listed(made.encode([Record(7, {"messages": list(conversation.messages)})]))
    assert len(chunk.digests) == 1
    return chunk


words = st.lists(st.sampled_from(["the", "sea", "assistant", "a", "<|im_end|", "\n"]), min_size=1, max_size=30)
said = words.map(" ".join).filter(lambda text: text.strip() != "")


@given(question=said, answer=said, system=st.none() | said, cutoff=st.integers(2, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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
    closing = tiny_tokenizer("<|im_end|>\n").input_ids
    start = next(place for place, label in enumerate(example.labels) if label != IGNORED)
    assert len(example.ids) == min(cutoff, len(whole.ids))
    assert example.cut == len(whole.ids) - len(example.ids)
    assert example.ids[start - len(opening) : start] == opening
    assert example.ids[start:] == example.labels[start:]
    assert example.ids[-len(closing) :] == closing
    learned_whole = [label for label in whole.labels if label != IGNORED]
    words = example.ids[start : -len(closing)]
    assert words == learned_whole[: len(words)]
    head = example.ids[: start - len(opening)]
    assert head == whole.ids[: len(head)]


def test_longer_examples_can_be_dropped_or_split(tiny_tokenizer, own, talk):
    conversation = talk("the sea", "one two three four five six seven eight nine ten")
    whole = encode(encoder(tiny_tokenizer, own(jinja.PLAIN), 10**6), conversation).examples[0]
    room = len(whole.ids) - 5
    dropped = encode(encoder(tiny_tokenizer, own(jinja.PLAIN), room, cutoff_strategy="drop"), conversation)
    assert dropped.dropped == [(7, f"it has {len(whole.ids)} tokens, more than cutoff_len {room}")]
    split = encode(encoder(tiny_tokenizer, own(jinja.PLAIN), room, cutoff_strategy="split"), conversation).examples
    assert [(part.index, part.cut) for part in split] == [(7, 0), (7, 0)]
    assert [label for part in split for label in part.labels if label != IGNORED] == [
        label for label in whole.labels if label != IGNORED
    ]


def test_a_call_is_never_cut_in_its_middle(tokenizer):
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]})
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": "the sea " * 20}}}
    conversation = Conversation(
        ({"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [call]})
    )
    template = choose_template("qwen", tokenizer)
    whole = encode(encoder(tokenizer, template, 10**6), conversation).examples[0]
    chunk = encode(encoder(tokenizer, template, len(whole.ids) - 3), conversation)
    assert chunk.examples == []
    assert "leaves no room for its response" in chunk.dropped[0][1]


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


END_OUTSIDE = jinja.MARKED.replace(
    "+ '<|im_end|>\n' }}{% endgeneration %}", "}}{% endgeneration %}{{ '<|im_end|>\n' }}"
)
TWO_PARTS = jinja.MARKED.replace(
    "{{ m['content'] + '<|im_end|>\n' }}{% endgeneration %}",
    "{{ m['content'][:9] }}{% endgeneration %}{{ '\n' }}{% generation %}{{ m['content'][9:] }}{% endgeneration %}",
)


@pytest.mark.parametrize("room", [1, 2])
def test_only_the_end_of_a_turn_that_no_loss_includes_does_not_fit(tiny_tokenizer, own, talk, room):
    """No record is lost: not this one, and none of those after it."""
    long = talk("the sea", "one two three")
    template = own(END_OUTSIDE)
    whole = encode(encoder(tiny_tokenizer, template, 10**6), long).examples[0]
    assert whole.labels[-2:] == [IGNORED, IGNORED]
    records = [Record(index, {"messages": list(one.messages)}) for index, one in enumerate([talk("a", "b"), long] * 2)]
    made = encoder(tiny_tokenizer, template, len(whole.ids) - room)
    (chunk,) = map(listed, encode_all(made, records))
    assert [one.index for one in chunk.examples] == [0, 1, 2, 3]
    assert chunk.examples[1].ids == whole.ids[:-room]
    assert chunk.examples[1].labels == whole.labels[:-room]
    assert (chunk.examples[1].cut, chunk.examples[1].cut_learned) == (room, 0)


def test_an_answer_with_two_trained_parts_is_cut_in_its_second(tiny_tokenizer, own, talk):
    conversation = talk("the sea", "the sea, one two three four")
    template = own(TWO_PARTS)
    whole = encode(encoder(tiny_tokenizer, template, 10**6), conversation).examples[0]
    (example,) = encode(encoder(tiny_tokenizer, template, len(whole.ids) - 3), conversation).examples
    assert example.ids == whole.ids[:-3]
    assert example.labels == whole.labels[:-3]
