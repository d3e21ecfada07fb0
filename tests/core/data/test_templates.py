"""The shipped templates, letter by letter."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llf_core.config.chat_templates import TOOL_FORMATS, entries, template_names
from llf_core.data.answer_ranges import render_answers, render_prompt
from llf_core.data.chat_template import ChatTemplate, choose_template
from llf_core.data.conversation import Conversation
from llf_core.data.errors import BadExample, DataError
from llf_core.data.templates import FOLDER, PLAIN, named_template

TWO = ("Q1", "A1", "Q2", "A2")
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
CHAT = (
    "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
    "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>\n"
)
EXPECTED = {
    "chatml": ("", CHAT),
    "smollm2": (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n",
        CHAT,
    ),
    "qwen": (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
        CHAT,
    ),
    "llama3": (
        "<s>",
        (
            "<|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nA2<|eot_id|>"
        ),
    ),
    "gemma": (
        "<s>",
        (
            "<start_of_turn>user\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
            "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\nA2<end_of_turn>\n"
        ),
    ),
    "mistral": ("<s>", "[INST] Q1[/INST] A1</s>[INST] Q2[/INST] A2</s>"),
    "phi": (
        "",
        "<|user|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n<|user|>\nQ2<|end|>\n<|assistant|>\nA2<|end|>\n",
    ),
    "default": ("", "Human: Q1</s>\nAssistant:A1</s>\nHuman: Q2</s>\nAssistant:A2</s>\n"),
    "alpaca": (
        ALPACA,
        "### Instruction:\nQ1\n\n### Response:\nA1</s>\n\n### Instruction:\nQ2\n\n### Response:\nA2</s>\n\n",
    ),
    "vicuna": (VICUNA, "USER: Q1 ASSISTANT:A1</s>USER: Q2 ASSISTANT:A2</s>"),
}
WITH_SYSTEM = {
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1",
    "smollm2": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1",
    "qwen": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user",
    "gemma": "<s><start_of_turn>user\nS\n\nQ1<end_of_turn>",
    "mistral": "<s>[INST] S\n\nQ1[/INST]",
    "phi": "<|system|>\nS<|end|>\n<|user|>\nQ1",
    "default": "System: S</s>\nHuman: Q1",
    "alpaca": "S### Instruction:\nQ1",
    "vicuna": "SUSER: Q1 ASSISTANT:",
}
FIRST_ANSWER = {
    "chatml": "A1<|im_end|>\n",
    "smollm2": "A1<|im_end|>\n",
    "qwen": "A1<|im_end|>\n",
    "llama3": "A1<|eot_id|>",
    "gemma": "A1<end_of_turn>\n",
    "mistral": " A1</s>",
    "phi": "A1<|end|>\n",
    "default": "A1</s>\n",
    "alpaca": "A1</s>\n\n",
    "vicuna": "A1</s>",
}


@pytest.fixture
def every(tokenizer):
    """A tokenizer that has the end tokens of all templates."""
    tokenizer.add_special_tokens(
        {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "extra_special_tokens": ["<|eot_id|>", "<end_of_turn>", "<|end|>", "<|im_end|>"],
        }
    )
    return tokenizer


@pytest.mark.parametrize("name", EXPECTED)
def test_the_text_of_a_template(every, talk, name):
    template = choose_template(name, every)
    start, rest = EXPECTED[name]
    rendered = render_answers(template, every, talk(*TWO))
    assert rendered.text == start + rest
    assert [rendered.text[slice(*span)] for span in rendered.answers] == [
        FIRST_ANSWER[name],
        FIRST_ANSWER[name].replace("A1", "A2"),
    ]


@pytest.mark.parametrize("name", EXPECTED)
def test_an_answer_without_a_question_is_trained_on(every, name):
    messages = ({"role": "assistant", "content": "A1"},)
    rendered = render_answers(choose_template(name, every), every, Conversation(messages))
    (answer,) = rendered.answers
    assert rendered.text[slice(*answer)] == FIRST_ANSWER[name]


@pytest.mark.parametrize("name", WITH_SYSTEM)
def test_the_system_prompt_of_a_template(every, talk, name):
    rendered = render_answers(choose_template(name, every), every, talk(*TWO, system="S"))
    assert rendered.text.startswith(WITH_SYSTEM[name])
    assert "You are" not in rendered.text
    assert "curious" not in rendered.text


def test_qwen_shows_tools_calls_and_results(every):
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    conversation = Conversation(
        (
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": "Wait.", "tool_calls": [call, call]},
            {"role": "tool", "content": "R1"},
            {"role": "tool", "content": "R2"},
            {"role": "assistant", "content": "A"},
        ),
        ({"type": "function", "function": {"name": "add"}},),
    )
    rendered = render_answers(choose_template("qwen", every), every, conversation)
    once = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert rendered.text.endswith(
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        f"<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nWait.\n{once}\n{once}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nR1\n</tool_response>\n<tool_response>\nR2\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n"
    )
    assert '<tools>\n{"type": "function", "function": {"name": "add"}}\n</tools>' in rendered.text
    first, second = (rendered.text[slice(*span)] for span in rendered.answers)
    assert first == f"Wait.\n{once}\n{once}<|im_end|>\n"
    assert second == "A<|im_end|>\n"


def test_a_generation_stops_at_the_end_and_at_the_stop_words(every):
    every.add_special_tokens({"extra_special_tokens": ["<|eom_id|>"]})
    template = choose_template("llama3", every)
    assert template.end_ids(every) == every.convert_tokens_to_ids(["<|eot_id|>", "<|eom_id|>"])
    assert choose_template("glm4", every).end_ids(every) == [every.eos_token_id]  # it has no <|user|>
    assert choose_template(None, every).end_ids(every) == []


def test_a_generation_stops_at_an_end_that_stands_for_unknown_tokens_too(tokenizer):
    tokenizer.unk_token = tokenizer.eos_token  # as in GPT-2's
    assert choose_template("default", tokenizer).end_ids(tokenizer) == [tokenizer.eos_token_id]


def test_an_unknown_template_is_told_the_nearest(tokenizer):
    with pytest.raises(DataError, match=r"Unknown template 'chatm'\. Did you mean 'chatml'"):
        choose_template("chatm", tokenizer)


def test_a_template_whose_end_the_tokenizer_lacks_is_refused(tokenizer):
    with pytest.raises(
        DataError, match=r"<\|eot_id\|>, which is not a token.*Matching templates: chatml, chatml_de, .* and \d+ more"
    ):
        choose_template("llama3", tokenizer)


def test_a_tokenizer_without_a_template_or_an_end_needs_one(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        choose_template(None, tokenizer)
    tokenizer.chat_template = {"tool_use": "x", "rag": "y"}
    with pytest.raises(DataError, match=r"\(tool_use, rag\), and none of them is named default"):
        choose_template(None, tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="the tokenizer has none"):
        choose_template("default", tokenizer)


def with_tokens(tokenizer, name):
    """A tokenizer that has all tokens that a template writes."""
    template = named_template(name)
    ends = [] if template.end == "eos_token" else [template.end]
    tokenizer.add_special_tokens(
        {"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": [*ends, *template.stop]}
    )
    return tokenizer


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "two"}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}


WITH_TOOLS = Conversation(
    (
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "R"},
        {"role": "assistant", "content": "A"},
    ),
    (TOOL,),
)


@pytest.mark.parametrize("name", template_names())
def test_every_template_renders_the_same_with_and_without_signs(tokenizer, talk, name):
    template = choose_template(name, with_tokens(tokenizer, name), preserve_thinking=True)
    for conversation in (talk(*TWO), talk(*TWO, system="S"), WITH_TOOLS):
        rendered = render_answers(template, tokenizer, conversation)
        assert rendered.text == template.render(tokenizer, conversation.messages, conversation.tools)
        assert rendered.text == tokenizer.apply_chat_template(
            list(conversation.messages),
            list(conversation.tools or ()) or None,
            chat_template=template.jinja,
            tokenize=False,
            preserve_thinking=True,
        )
        answers = [message["content"] for message in conversation.messages if message["role"] == "assistant"]
        assert len(rendered.answers) == len(answers)
        for (start, end), said in zip(rendered.answers, answers, strict=True):
            assert said in rendered.text[start:end]
        assert {border for span in rendered.answers for border in span} <= set(rendered.cuts)


@pytest.mark.parametrize("name", [name for name in template_names() if not named_template(name).thinks])
@given(said=st.lists(st.text(), min_size=1, max_size=3), system=st.none() | st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=10)
def test_plain_conversations_render_as_jinja_does(tokenizer, talk, name, said, system):
    template = choose_template(name, with_tokens(copy.deepcopy(tokenizer), name))
    conversation = talk(*[text for one in said for text in (one, one[::-1])], system=system)
    plain = template.fast_renderer.render(conversation.messages)
    assert plain == template.render(tokenizer, conversation.messages, markers=True)


@pytest.mark.parametrize("name", ["chatml", "qwen"])
def test_functions_and_thoughts_are_left_to_jinja(tokenizer, name):
    template = choose_template(name, with_tokens(tokenizer, name))
    assert template.fast_renderer.render(WITH_TOOLS.messages) is None
    assert choose_template("qwen3", with_tokens(tokenizer, "qwen3")).fast_renderer is None


@pytest.mark.parametrize("name", template_names())
def test_what_opens_an_answer_is_what_a_generation_begins_with(tokenizer, talk, name):
    template = choose_template(name, with_tokens(tokenizer, name))
    whole = render_answers(template, tokenizer, talk("Q", "A"))
    prompt = template.render(tokenizer, talk("Q").messages, add_generation_prompt=True)
    assert whole.text[: whole.answers[0][0]] == prompt
    assert template.stop == named_template(name).stop


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_a_tool_format_can_be_chosen_beside_a_template(every, tool_format):
    template = choose_template("chatml", every, tool_format=tool_format)
    rendered = render_answers(template, every, WITH_TOOLS)
    assert rendered.text == template.render(every, WITH_TOOLS.messages, WITH_TOOLS.tools)
    call, answer = (rendered.text[slice(*span)] for span in rendered.answers)
    assert "add" in rendered.text[: rendered.answers[0][0]]
    assert "add" in call
    assert "two" in call
    assert answer == "A<|im_end|>\n"


def test_the_tool_formats_are_the_files_that_ship():
    assert {path.stem for path in (FOLDER / "tools").glob("*.jinja")} == set(TOOL_FORMATS)


def test_names_and_fields_of_the_file_are_known():
    fields = {*PLAIN, "label", "calls", "result", "join", "empty"}
    for name, entry in entries().items():
        assert set(entry) <= fields, name
        assert entry["label"], name
        assert len(entry.get("think", ())) in {0, 2}, name


def test_a_saved_tokenizer_carries_the_template_and_its_end(every, talk, tmp_path):
    template = choose_template("gemma", every)
    template.apply_to(every)
    every.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    messages = list(talk("Q1", "A1").messages)
    assert again.apply_chat_template(messages, tokenize=False) == template.render(every, messages)
    assert again.eos_token == "<end_of_turn>"


@pytest.mark.parametrize("letter", ["\ue001", "\ue002", "\ue003", "\ud800"])
def test_a_prompt_with_a_character_that_has_a_meaning_or_none_is_a_reason(letter):
    named = named_template("chatml")
    template = ChatTemplate("chatml", named.jinja(), "<|im_end|>", marked=named.marked())
    with pytest.raises(BadExample, match=r"private-use|surrogates"):
        render_prompt(template, None, Conversation(({"role": "user", "content": f"a{letter}"},)))
