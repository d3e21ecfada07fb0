import pytest

from llf_core.generation.conversation import Conversation, common_prefix_length
from llf_core.generation.sampling import Sampling
from tests.core.generation.small_models import OTHERS, by_transformers, make

GREEDY = Sampling()


def prompt_of(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def expected(model, tokenizer, messages, count):
    ids = by_transformers(model, prompt_of(tokenizer, messages), count)
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_ids_shared_from_the_start():
    assert common_prefix_length([1, 2, 3], [1, 2, 4, 3]) == 2
    assert common_prefix_length([1, 2], [1, 2, 3]) == 2
    assert common_prefix_length([], [1]) == common_prefix_length([2], [1]) == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_turns_read_only_what_is_new_and_answer_as_if_all_were_read(models, tokenizer, kind):
    model = models(kind)
    talk = Conversation(model, tokenizer)
    talk._ends = []
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    first = talk.reply(messages, GREEDY, max_new_tokens=12)
    assert first.text == expected(model, tokenizer, messages, 12)
    assert (first.kept, first.read, first.tokens) == (0, len(prompt_of(tokenizer, messages)), 12)
    # What the history says of the answer may be tokenized otherwise; the first prompt is kept in any case.
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And the sea?"}]
    second = talk.reply(messages, GREEDY, max_new_tokens=12)
    assert second.text == expected(model, tokenizer, messages, 12)
    assert second.kept >= first.read
    assert second.kept + second.read == len(prompt_of(tokenizer, messages))
    # The same again: all but the last token is in the cache.
    again = talk.reply(messages, GREEDY, max_new_tokens=12)
    assert (again.text, again.read) == (second.text, 1)
    # An edited first message: only the template's beginning is shared.
    messages[0] = {"role": "user", "content": "How do plants make their food?"}
    edited = talk.reply(messages, GREEDY, max_new_tokens=12)
    assert edited.text == expected(model, tokenizer, messages, 12)
    assert 0 < edited.kept < first.read


def test_an_answer_that_is_cancelled_leaves_a_conversation_that_goes_on(models, tokenizer):
    model = models("llama")
    talk = Conversation(model, tokenizer)
    talk._ends = []
    messages = [{"role": "user", "content": "one two three"}]
    pieces = []
    cut = talk.reply(messages, GREEDY, max_new_tokens=30, on_text=pieces.append, cancelled=lambda: len(pieces) >= 3)
    assert cut.tokens < 30
    assert expected(model, tokenizer, messages, 30).startswith(cut.text)
    whole = talk.reply(messages, GREEDY, max_new_tokens=30)
    assert whole.text == expected(model, tokenizer, messages, 30)
    assert whole.read == 1


@pytest.mark.parametrize("kind", OTHERS)
def test_models_with_other_caches_answer_by_transformers_and_say_why(tokenizer, kind):
    model = make(kind, OTHERS[kind], len(tokenizer))
    talk = Conversation(model, tokenizer)
    talk._ends = []
    messages = [{"role": "user", "content": "the sea, the ship"}]
    for _ in range(2):
        reply = talk.reply(messages, GREEDY, max_new_tokens=10)
        assert reply.text == expected(model, tokenizer, messages, 10)
        assert reply.kept == 0
    assert type(model).__name__ in talk.plain


def test_training_mode_is_left_as_it_was(models, tokenizer):
    model = models("llama").train()
    Conversation(model, tokenizer).reply([{"role": "user", "content": "one"}], GREEDY, max_new_tokens=2)
    assert model.training
