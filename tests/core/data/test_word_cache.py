"""Ids by words are the library's own, and words are only used where that is so."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llf_core.data import word_cache as words_module
from llf_core.data.word_cache import (
    BESIDE,
    MAIN,
    MAX_WORD_LENGTH,
    CachedTokenizer,
    FastTokenizer,
    fast_tokenizer_of,
    token_range,
)

CORPUS = [
    "The lighthouse keeper's lamp won't burn 12345 nights, they've said so in 1998.\n\nWhy?  Because it'll rain!",
    "def keep(lamp):\n    return lamp.burn(nights=7)  # no more\n\tpass",
    "Älgar äter äpplen. 灯台守は毎晩ランプを灯す。 Смотритель маяка. \u00a0\u2003 🦊🦊 e\u0301a\u0308",
]
SIGNS = ["<|im_start|>", "<|im_end|>"]
SPACES = [" ", " ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\x00", "\x1c", "\x85"]
LETTERS = [
    "a",
    "keeper",
    "'s",
    "'LL",
    "won't",
    "12345",
    "½",
    ".",
    "...",
    "!?",
    "灯台守",
    "маяка",
    "🦊",
    "return",
    "<",
    "|",
]
MARKS = ["e\u0301", "\u0308", "x" * (MAX_WORD_LENGTH + 5), *SIGNS]
SOME = st.lists(st.sampled_from([*SPACES, *LETTERS, *MARKS]) | st.text(max_size=4), max_size=24).map("".join)


def made(pre_tokenizer, *, normalizer=None, added=()):
    """A byte-level BPE, trained on the corpus."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SIGNS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def by(pattern, *before):
    """The pre-tokenizer of a pattern, as published tokenizers write it."""
    splits = [pre_tokenizers.Split(Regex(one), "isolated") for one in (*before, pattern)]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
TOKENIZERS = {
    "gpt-2": made(GPT_2),
    "smollm2": made(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT_2])),
    "nfc": made(by(min(MAIN)), normalizer=normalizers.NFC()),
    "three splits": made(by(max(MAIN, key=lambda one: "{P}" in one), *sorted(BESIDE))),
} | {f"pattern {number}": made(by(pattern)) for number, pattern in enumerate(sorted(MAIN))}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


def plainly(tokenizer, text):
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return found["input_ids"], found["offset_mapping"]


@settings(max_examples=300)
@given(texts=st.lists(SOME, max_size=4), name=st.sampled_from(sorted(TOKENIZERS)))
def test_ids_are_those_of_the_whole_text(texts, name):
    tokenizer = TOKENIZERS[name]
    library = fast_tokenizer_of(tokenizer)
    assert isinstance(library, CachedTokenizer)
    expected = [plainly(tokenizer, text)[0] for text in texts]
    assert [list(ids) for ids in library.ids(texts)] == expected
    assert [list(ids) for ids in library.ids(texts)] == expected  # now that it knows the words


@settings(max_examples=300)
@given(texts=st.lists(SOME, max_size=3), name=st.sampled_from(sorted(TOKENIZERS)), data=st.data())
def test_pieces_are_tokenized_as_if_each_stood_alone(texts, name, data):
    tokenizer = TOKENIZERS[name]
    cuts = [sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3))) for text in texts]
    pieces = [
        text[start:end]
        for text, own in zip(texts, cuts, strict=True)
        for start, end in itertools.pairwise([0, *own, len(text)])
    ]
    expected = [plainly(tokenizer, piece)[0] for piece in pieces]
    for library in (fast_tokenizer_of(tokenizer), FastTokenizer(tokenizer.backend_tokenizer)):
        ids, bounds = library.pieces(texts, cuts)
        assert [list(ids[start:end]) for start, end in itertools.pairwise(bounds)] == expected


def test_a_sign_that_two_texts_make_together_is_none(tokenizer):
    texts = ["the <|im_", "end|> lamp <|im_end|>", "<|im_start", "|>"]
    expected = [plainly(tokenizer, text)[0] for text in texts]
    assert [list(ids) for ids in fast_tokenizer_of(tokenizer).ids(texts)] == expected


@settings(max_examples=300)
@given(text=SOME, name=st.sampled_from(sorted(TOKENIZERS)), data=st.data())
def test_parts_are_found_where_the_offsets_say(text, name, data):
    tokenizer = TOKENIZERS[name]
    first = data.draw(st.integers(0, len(text)))
    last = data.draw(st.integers(first, len(text)))
    ids, offsets = plainly(tokenizer, text)
    parts = ((first, last),)
    for library in (fast_tokenizer_of(tokenizer), FastTokenizer(tokenizer.backend_tokenizer)):
        ((found, places),) = library.locate([text], [parts])
        assert (list(found), places) == (ids, (token_range(offsets, first, last),))


def test_a_word_is_asked_for_once(tokenizer, monkeypatch):
    asked = []
    whole = FastTokenizer._encode
    monkeypatch.setattr(FastTokenizer, "_encode", lambda self, texts: asked.extend(texts) or whole(self, texts))
    library = fast_tokenizer_of(tokenizer)
    library.ids(["the lamp burns", "the lamp  burns"])
    # What has two blanks is not taken apart; words that have none but their first go to the library together.
    assert asked == [" lamp burns", "the", " lamp  burns"]
    asked.clear()
    library.ids(["the lamp burns bright"])
    assert asked == [" bright"]


def test_words_that_cannot_be_told_apart_afterwards_are_asked_for_one_by_one(tokenizer, monkeypatch):
    library = fast_tokenizer_of(tokenizer)
    monkeypatch.setattr(library, "_blank_first", lambda ids: set())
    assert [list(ids) for ids in library.ids(["the lamp burns"])] == [plainly(tokenizer, "the lamp burns")[0]]


def test_long_words_are_not_kept_and_the_rest_is_not_kept_without_end(tokenizer, monkeypatch):
    monkeypatch.setattr(words_module, "MAX_WORDS", 5)
    library = fast_tokenizer_of(tokenizer)
    long = "x" * (MAX_WORD_LENGTH + 1)
    assert library.ids([f"a {long} b"])[0].tolist() == plainly(tokenizer, f"a {long} b")[0]
    assert set(library._known) == {"a", " b"}
    for number in range(20):
        library.ids([f"a {number}"])
        assert len(library._known) <= 7


ODD = {
    "a blank in front of every text": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "no parting at all": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    "an unknown pattern": by(r".{3}"),
    "blanks go to the word before": pre_tokenizers.Split(" ", "merged_with_previous"),
}


@pytest.mark.parametrize("name", ODD)
def test_other_tokenizers_take_texts_whole(name):
    tokenizer = made(ODD[name])
    library = fast_tokenizer_of(tokenizer)
    assert type(library) is FastTokenizer
    assert [list(ids) for ids in library.ids(["the lamp burns", ""])] == [plainly(tokenizer, "the lamp burns")[0], []]


@pytest.mark.parametrize(
    "token", [AddedToken("<x>", lstrip=True), AddedToken("<x>", single_word=True), AddedToken("two words")]
)
def test_a_token_that_reaches_over_blanks_takes_texts_whole(token):
    assert type(fast_tokenizer_of(made(GPT_2, added=[token]))) is FastTokenizer
    assert type(fast_tokenizer_of(made(GPT_2, added=[AddedToken("<x>")]))) is CachedTokenizer


def test_a_normalizer_that_writes_blanks_takes_texts_whole():
    assert type(fast_tokenizer_of(made(GPT_2, normalizer=normalizers.Prepend(" ")))) is FastTokenizer


def test_dropout_takes_texts_whole():
    tokenizer = made(GPT_2)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["dropout"] = 0.1
    assert (
        type(fast_tokenizer_of(PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))))
        is FastTokenizer
    )
