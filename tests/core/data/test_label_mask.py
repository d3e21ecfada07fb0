"""Labels: exactly the answers are learned, on exactly the tokens that `apply_chat_template` gives."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llf_core.config.data import IGNORED
from llf_core.data.answer_ranges import RewrittenAnswer, render_all, render_answers
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import Conversation
from llf_core.data.errors import BadExample
from llf_core.data.label_mask import encode
from llf_core.data.word_cache import token_range
from tests.core.data import templates as jinja

words = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t "), max_size=24)
said = words.filter(lambda text: text.strip() != "")
exchanges = st.lists(st.tuples(said, said), min_size=1, max_size=4)
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def tokens(tokenizer, template, conversation, **options):
    rendered = render_answers(template, tokenizer, conversation, last_only=options.pop("last_only", False))
    (result,) = encode(tokenizer, [rendered], **options)
    return result if isinstance(result, BadExample) else result.lists()


def flat(pairs):
    return [text for pair in pairs for text in pair]


def by_token_prefixes(tokenizer, template, conversation):
    """A second way to the labels: compare the tokens of prefixes. It needs prefixes that tokenize alike."""
    messages = list(conversation.messages)

    def ids(part, **options):
        return tokenizer.apply_chat_template(part, chat_template=template, return_dict=False, **options)

    whole = ids(messages)
    labels = [IGNORED] * len(whole)
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            before = ids(messages[:place], add_generation_prompt=True)
            after = ids(messages[: place + 1])
            assert whole[: len(before)] == before
            assert whole[: len(after)] == after
            labels[len(before) : len(after)] = whole[len(before) : len(after)]
    return whole, labels


@given(pairs=exchanges, system=st.none() | said, name=st.sampled_from(["plain", "default system", "marked", "trims"]))
@shared
def test_labels_are_those_of_a_second_implementation(tiny_tokenizer, own, talk, pairs, system, name):
    conversation = talk(*flat(pairs), system=system)
    found = tokens(tiny_tokenizer, own(jinja.SOUND[name]), conversation)
    # Only a newline that opens an answer could join the header's; these templates end headers with one.
    whole = tiny_tokenizer.apply_chat_template(
        list(conversation.messages), chat_template=jinja.SOUND[name], return_dict=False
    )
    assert found.ids == whole
    if not any(answer[0].isspace() for _, answer in pairs):
        assert (found.ids, found.labels) == by_token_prefixes(tiny_tokenizer, jinja.SOUND[name], conversation)


@given(pairs=exchanges, system=st.none() | said)
@shared
def test_tokens_and_labels_are_those_of_llama_factory(tiny_tokenizer, talk, pairs, system):
    """Its way for template chatml: question and answer are encoded apart and joined."""
    pairs = [(question, answer.lstrip()) for question, answer in pairs]
    ids, labels = [], []
    start = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
    for question, answer in pairs:
        source = tiny_tokenizer(f"{start}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").input_ids
        target = tiny_tokenizer(f"{answer}<|im_end|>\n").input_ids
        ids += source + target
        labels += [IGNORED] * len(source) + target
        start = ""
    found = tokens(tiny_tokenizer, choose_template("chatml", tiny_tokenizer), talk(*flat(pairs), system=system))
    assert (found.ids, found.labels) == (ids, labels)


@given(pairs=exchanges, name=st.sampled_from(sorted(jinja.SOUND)))
@shared
def test_what_is_learned_reads_as_the_answers(tiny_tokenizer, own, talk, pairs, name):
    conversation = talk(*flat(pairs))
    rendered = render_answers(own(jinja.SOUND[name]), tiny_tokenizer, conversation)
    (found,) = encode(tiny_tokenizer, [rendered])
    for (start, end), turn, (_, answer) in zip(rendered.answers, found.turns, pairs, strict=True):
        text = tiny_tokenizer.decode(found.ids[turn.start : turn.end])
        assert rendered.text[start:end].endswith(("<|im_end|>", "<|im_end|>\n"))
        assert answer.strip() in text
        assert text.endswith(rendered.text[start:end].lstrip())
        assert found.labels[turn.start : turn.end] == found.ids[turn.start : turn.end]
    learned = {place for turn in found.turns for place in range(turn.start, turn.end)}
    assert all(label == IGNORED for place, label in enumerate(found.labels) if place not in learned)


@given(pairs=exchanges, system=st.none() | said)
@shared
def test_labels_are_those_of_generation_marks(tiny_tokenizer, own, talk, pairs, system):
    conversation = talk(*flat(pairs), system=system)
    found = tokens(tiny_tokenizer, own(jinja.MARKED), conversation)
    marked = tiny_tokenizer.apply_chat_template(
        list(conversation.messages), chat_template=jinja.MARKED, return_assistant_tokens_mask=True
    )
    assert found.ids == marked["input_ids"]
    assert [int(label != IGNORED) for label in found.labels] == marked["assistant_masks"]


@given(pairs=exchanges)
@shared
def test_train_on_prompt_learns_all_and_mask_history_the_last(tiny_tokenizer, own, talk, pairs):
    conversation, template = talk(*flat(pairs)), own(jinja.DEFAULT_SYSTEM)
    every = tokens(tiny_tokenizer, template, conversation, train_on_prompt=True)
    assert every.labels == every.ids
    last = tokens(tiny_tokenizer, template, conversation, last_only=True)
    usual = tokens(tiny_tokenizer, template, conversation)
    start, end = usual.turns[-1].start, usual.turns[-1].end
    assert last.turns == usual.turns[-1:]
    assert last.labels == [IGNORED] * start + usual.ids[start:end]


def test_the_end_token_and_the_newline_after_it_are_learned(tiny_tokenizer, own, talk):
    found = tokens(tiny_tokenizer, own(jinja.PLAIN), talk("Hi", "Yo"))
    learned = [tiny_tokenizer.decode(label) for label in found.labels if label != IGNORED]
    assert "".join(learned) == "Yo<|im_end|>\n"
    assert learned[-2:] == ["<|im_end|>", "\n"]


@pytest.mark.parametrize(
    ("offsets", "learned"),
    [
        ([(0, 3), (3, 6), (6, 9), (9, 12)], [2, 3]),  # borders meet
        ([(0, 3), (3, 7), (7, 12)], [1, 2]),  # a token over the border holds the answer's first character
        ([(0, 6), (6, 6), (6, 12)], [2]),  # an empty token at the border belongs to the prompt
        ([(0, 5), (7, 12)], [1]),  # blanks that no token holds
        ([(0, 3), (3, 6), (6, 8), (6, 8), (8, 14)], [2, 3, 4]),  # two tokens of one character
    ],
)
def test_the_tokens_that_share_a_character_with_an_answer_are_learned(offsets, learned):
    assert token_range(offsets, 6, 12) == (learned[0], learned[-1] + 1)


class Slow:
    """A tokenizer without offsets."""

    is_fast = False

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, **options):
        return self.tokenizer(text, **options)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@given(pairs=exchanges)
@shared
def test_a_tokenizer_without_offsets_gives_the_same_or_a_reason(tiny_tokenizer, own, talk, pairs):
    conversation, template = talk(*flat(pairs)), own(jinja.PLAIN)
    fast = tokens(tiny_tokenizer, template, conversation)
    slow = tokens(Slow(tiny_tokenizer), template, conversation)
    if any(answer[0].isspace() for _, answer in pairs) and isinstance(slow, BadExample):
        assert "splits the prompt differently" in str(slow)
    else:
        assert slow == fast


# -- what a template may do that makes an example unusable ------------------------------------------------


def test_thinking_that_is_stripped_from_earlier_turns_is_a_reason(tiny_tokenizer, own, talk):
    template = own(jinja.STRIPS_THINKING)
    conversation = talk("Q1", "<think>x</think>A1", "Q2", "<think>y</think>A2")
    with pytest.raises(RewrittenAnswer, match="renders turn 2 differently when later turns follow"):
        tokens(tiny_tokenizer, template, conversation)
    last = tokens(tiny_tokenizer, template, conversation, last_only=True)
    text = tiny_tokenizer.decode([label for label in last.labels if label != IGNORED])
    assert text == "<think>y</think>A2<|im_end|>\n"
    assert "<think>x" not in tiny_tokenizer.decode(last.ids)


def test_each_answer_is_an_example_where_earlier_thinking_is_stripped(tiny_tokenizer, own, talk):
    conversation = talk("Q1", "<think>x</think>A1", "Q2", "<think>y</think>A2")
    found = list(render_all(own(jinja.STRIPS_THINKING), tiny_tokenizer, conversation))
    assert [len(part.messages) for part, _ in found] == [2, 4]
    assert [rendered.text[slice(*rendered.answers[-1])] for _, rendered in found] == [
        "<think>x</think>A1<|im_end|>\n",
        "<think>y</think>A2<|im_end|>\n",
    ]
    assert all(len(rendered.answers) == 1 for _, rendered in found)
    assert "<think>x" not in found[1][1].text
    assert len(list(render_all(own(jinja.PLAIN), tiny_tokenizer, conversation))) == 1


def test_a_template_with_generation_marks_may_strip_earlier_thinking(tiny_tokenizer, own, talk):
    template = own(
        jinja.MARKED.replace(
            "m['content'] + '<|im_end|>\n' }}{% endgeneration",
            "(m['content'] if loop.last else m['content'].split('</think>')[-1]) + '<|im_end|>\n' }}{% endgeneration",
        )
    )
    found = list(render_all(template, tiny_tokenizer, talk("Q1", "<think>x</think>A1", "Q2", "<think>y</think>A2")))
    assert [[rendered.text[slice(*span)] for span in rendered.answers] for _, rendered in found] == [
        ["<think>x</think>A1<|im_end|>\n"],
        ["<think>y</think>A2<|im_end|>\n"],
    ]


def test_generation_marks_around_an_answer_and_around_its_end_are_one_answer(tiny_tokenizer, own, talk):
    template = own(
        jinja.MARKED.replace(
            "+ '<|im_end|>\n' }}{% endgen", "}}{% endgeneration %}{% generation %}{{ '<|im_end|>\n' }}{% endgen"
        )
    )
    for last_only, answers in ((False, ["A1<|im_end|>\n", "A2<|im_end|>\n"]), (True, ["A2<|im_end|>\n"])):
        rendered = render_answers(template, tiny_tokenizer, talk("Q1", "A1", "Q2", "A2"), last_only=last_only)
        assert [rendered.text[slice(*span)] for span in rendered.answers] == answers


def test_thinking_that_is_never_shown_is_a_reason(tiny_tokenizer, own, talk):
    with pytest.raises(BadExample, match="drops a part of the response '<think>x</think>A1'"):
        tokens(tiny_tokenizer, own(jinja.ALWAYS_STRIPS), talk("Q1", "<think>x</think>A1"))


def test_a_text_that_changes_with_later_turns_is_a_reason(tiny_tokenizer, own, talk):
    with pytest.raises(BadExample, match="turn 2 differently when later turns follow"):
        tokens(tiny_tokenizer, own(jinja.COUNTS_TURNS), talk("Q1", "A1", "Q2", "A2"))
    with pytest.raises(BadExample, match="changes the text before turn 2"):
        tokens(tiny_tokenizer, own(jinja.COUNTS_TURNS), talk("Q1", "A1"))


def test_a_generation_prompt_that_opens_a_thought_leaves_the_answer(tiny_tokenizer, own, talk):
    found = tokens(tiny_tokenizer, own(jinja.OPENS_A_THOUGHT), talk("Q1", "A1"))
    assert tiny_tokenizer.decode([label for label in found.labels if label != IGNORED]) == "A1<|im_end|>\n"


@pytest.mark.parametrize(("thinking", "learned"), [(True, "A1"), (None, "A1"), (False, "A1")])
def test_enable_thinking_reaches_the_template(tiny_tokenizer, own, talk, thinking, learned):
    options = {} if thinking is None else {"enable_thinking": thinking}
    found = tokens(tiny_tokenizer, own(jinja.SWITCHES_THINKING, **options), talk("Q1", "A1"))
    whole = tiny_tokenizer.decode(found.ids)
    assert ("<think>\n\n</think>" in whole) == (thinking is False)
    assert tiny_tokenizer.decode([label for label in found.labels if label != IGNORED]) == f"{learned}<|im_end|>\n"


def test_calls_and_tools_that_are_not_shown_are_reasons(tiny_tokenizer, own):
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {}}}]}
    question, answer = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
    with pytest.raises(BadExample, match="does not render the call of add"):
        tokens(tiny_tokenizer, own(jinja.PLAIN), Conversation((question, call)))
    tools = ({"type": "function", "function": {"name": "add"}},)
    with pytest.raises(BadExample, match="does not render the tools"):
        tokens(tiny_tokenizer, own(jinja.PLAIN), Conversation((question, answer), tools))


def test_a_template_that_refuses_is_a_reason_in_its_own_words(tiny_tokenizer, own, talk):
    with pytest.raises(BadExample, match="cannot render it: no system prompts"):
        tokens(tiny_tokenizer, own("{{ raise_exception('no system prompts') }}"), talk("Q", "A"))
    with pytest.raises(BadExample, match="cannot render it"):
        tokens(tiny_tokenizer, own("{{ messages[0]['content'] + none }}"), talk("Q", "A"))
