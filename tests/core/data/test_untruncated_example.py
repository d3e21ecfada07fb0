"""Records with the tokens that truncation removes: what is kept of them is what training gets."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llf_core.data.align import Reading
from llf_core.data.conversation import ANSWERS, PAIRS, PROMPTS
from llf_core.data.encoder import Encoder
from llf_core.data.errors import BadExample
from llf_core.data.inspect.explain_example import untruncated_examples
from llf_core.data.records import Record
from tests.core.data import templates as jinja

READINGS = {
    ANSWERS: Reading("openai", {"messages": "messages"}, {}, "a test", ANSWERS),
    PROMPTS: Reading("alpaca", {"prompt": "q"}, {}, "a test", PROMPTS),
    PAIRS: Reading("alpaca", {"prompt": "q", "chosen": "chosen", "rejected": "rejected"}, {}, "a test", PAIRS),
}
words = st.lists(st.sampled_from(["the", "sea", "ship", "a"]), min_size=1, max_size=20).map(" ".join)


def kept(example):
    return [token for token, left in zip(example.tokens.ids, example.kept, strict=True) if left]


def made(tokenizer, template, kind, row, cutoff, **options):
    """What a view gets of a record, and the sequences that training gets; a reason in place of either."""
    encoder = Encoder(tokenizer, template, READINGS[kind], cutoff, kind=kind, **options)
    chunk = encoder.encode([Record(0, row)])
    sides = [
        list(ids) for one in chunk.examples for ids in (one.ids, *filter(None, [(one.more or {}).get("rejected_ids")]))
    ]
    if chunk.dropped:
        with pytest.raises(BadExample) as error:
            untruncated_examples(encoder, Record(0, row))
        assert [reason for _, reason in chunk.dropped] == [str(error.value)]
        return str(error.value), sides
    return untruncated_examples(encoder, Record(0, row)), sides


@given(texts=st.lists(words, min_size=2, max_size=6).filter(lambda one: len(one) % 2 == 0), cutoff=st.integers(2, 60))
@pytest.mark.parametrize("mask_history", [False, True])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_of_a_conversation(tiny_tokenizer, own, talk, mask_history, texts, cutoff):
    row = {"messages": list(talk(*texts).messages)}
    found, sides = made(tiny_tokenizer, own(jinja.PLAIN), ANSWERS, row, cutoff, mask_history=mask_history)
    if isinstance(found, str):
        assert not sides
        return
    assert [kept(one) for one in found] == sides
    (example,) = found
    assert tiny_tokenizer(example.rendered.text, add_special_tokens=False).input_ids == example.tokens.ids
    assert not mask_history or row["messages"][-1] == example.conversation.messages[-1]


@given(question=words, chosen=words, rejected=words, cutoff=st.integers(2, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_of_a_pair(tiny_tokenizer, own, question, chosen, rejected, cutoff):
    row = {"q": question, "chosen": chosen, "rejected": f"{rejected} no"}
    found, sides = made(tiny_tokenizer, own(jinja.PLAIN), PAIRS, row, cutoff)
    assert isinstance(found, str) or [kept(one) for one in found] == sides
    assert isinstance(found, str) == (not sides)


@given(question=words, cutoff=st.integers(2, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_of_a_prompt(tiny_tokenizer, own, question, cutoff):
    found, sides = made(tiny_tokenizer, own(jinja.PLAIN), PROMPTS, {"q": question}, cutoff)
    assert isinstance(found, str) or [kept(one) for one in found] == sides
    assert isinstance(found, str) == (not sides)


@pytest.mark.parametrize(
    ("kind", "strategy", "row"),
    [
        (
            ANSWERS,
            "drop",
            {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "sea " * 9}]},
        ),
        (PAIRS, "drop", {"q": "Hi", "chosen": "Yo", "rejected": "the sea " * 9}),
        (PAIRS, "split", {"q": "Hi", "chosen": "Yo", "rejected": "the sea " * 9}),
        (PAIRS, "cut", {"q": "Hi", "chosen": "the sea " * 9 + "yes", "rejected": "the sea " * 9 + "no"}),
        (ANSWERS, "cut", {"messages": [{"role": "user", "content": "Q"}]}),
    ],
)
def test_a_record_that_gives_no_example_has_the_reason(tiny_tokenizer, own, kind, strategy, row):
    found, sides = made(tiny_tokenizer, own(jinja.PLAIN), kind, row, 20, cutoff_strategy=strategy)
    assert isinstance(found, str)
    assert not sides
