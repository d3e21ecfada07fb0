from hypothesis import given
from hypothesis import strategies as st

from llf_core.generation.text_stream import TextStream
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def fed(text, stops=(), ends=()):
    pieces = []
    stream = TextStream(TOKENIZER, ends, stops, pieces.append)
    taken = 0
    for token in TOKENIZER(text, add_special_tokens=False)["input_ids"]:
        taken += 1
        if stream.put(token):
            break
    stream.close()
    return stream.text, pieces, taken


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_pieces_are_the_text_up_to_the_first_stop(text, stops):
    whole = TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True)
    found, pieces, _ = fed(text, stops)
    assert "".join(pieces) == found
    assert whole.startswith(found)
    if any(stop in whole for stop in stops):
        assert len(found) == min(whole.find(stop) for stop in stops if stop in whole)
    else:
        assert found == whole


def test_a_character_of_several_tokens_comes_whole():
    text, pieces, taken = fed("a🌊b")
    assert pieces == ["a", "🌊", "b"]
    assert (text, taken) == ("a🌊b", 6)


def test_what_may_begin_a_stop_is_held_back():
    assert fed("ab#", ["##"])[1] == ["a", "b", "#"]
    assert fed("ab##c", ["##"])[1] == ["a", "b"]


def test_a_token_that_ends_gives_no_text():
    ids = TOKENIZER("one", add_special_tokens=False)["input_ids"]
    stream = TextStream(TOKENIZER, [TOKENIZER.eos_token_id])
    assert not any(stream.put(token) for token in ids)
    assert stream.put(TOKENIZER.eos_token_id)
    assert stream.text == "one"
