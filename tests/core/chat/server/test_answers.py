"""What the `openai` client gets of the events of an engine."""

import json

import openai
import pytest

from llf_core.chat.picture import picture_url
from llf_core.chat.request import Alternative, Failed, Piece, Started, Token, ToolCallPiece
from tests.core.chat.server.scripted_service import fails, finished, hello
from tests.tiny import picture_file

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("add", "stop")
]


@pytest.fixture
def ask(served):
    """Sends a request through the client; the service answers as it is told."""

    def asked(answer=hello, **fields):
        served.service.answer = answer
        fields = {"model": "base", "messages": HELLO} | fields
        return served.openai.chat.completions.create(**fields)

    return asked


def says(*events):
    return lambda asked: asked.say(Started(3, 1), *events)


def test_an_answer(ask, served):
    answer = ask(says(Piece("Let me see.", "reasoning"), Piece("It is"), Piece(" 4."), finished()))
    (choice,) = answer.choices
    assert choice.message.content == "It is 4."
    assert choice.message.reasoning_content == "Let me see."
    assert (choice.finish_reason, choice.message.tool_calls, choice.logprobs) == ("stop", None, None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 2, 5)
    assert answer.usage.prompt_tokens_details.cached_tokens == 1
    assert served.service.asked[-1].request.messages == ({"role": "user", "content": "Hello"},)


def test_a_stream(ask):
    events = says(Piece("Hm.", "reasoning"), Piece("It "), Piece("is."), finished("length"))
    chunks = list(ask(events, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert [delta.content for delta in deltas] == ["", None, "It ", "is.", None]
    assert deltas[0].role == "assistant"
    assert deltas[1].reasoning_content == "Hm."
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 4 + ["length"]
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 5)
    assert len({chunk.id for chunk in chunks}) == 1


def test_choices_are_told_apart(ask, served):
    def answer(asked):
        asked.say(Started(3, 1), Piece(f"seed {asked.request.sampling.seed}"), finished())

    whole = ask(answer, n=3, seed=5)
    assert [choice.message.content for choice in whole.choices] == ["seed 5", "seed 6", "seed 7"]
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 6)  # the prompt is one
    texts = ["", "", ""]
    for chunk in ask(answer, n=3, seed=5, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["seed 5", "seed 6", "seed 7"]


CALLS = (
    ToolCallPiece(0, "", "call_1", "add"),
    ToolCallPiece(0, '{"a": '),
    ToolCallPiece(0, "1}"),
    ToolCallPiece(1, "{}", "call_2", "stop"),
)


def streamed_calls(chunks):
    """The tool calls of a stream put together as clients do, and the last finish reason."""
    calls, reason = {}, None
    for chunk in chunks:
        choice = chunk.choices[0]
        reason = choice.finish_reason or reason
        for part in choice.delta.tool_calls or ():
            call = calls.setdefault(part.index, {"id": part.id, "name": part.function.name, "arguments": ""})
            call["arguments"] += part.function.arguments
    return list(calls.values()), reason


def test_tool_calls(ask):
    events = says(Piece("I add."), *CALLS, finished("tool_calls"))
    (choice,) = ask(events, tools=TOOLS).choices
    assert (choice.message.content, choice.finish_reason) == ("I add.", "tool_calls")
    assert [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls] == [
        ("call_1", "add", '{"a": 1}'),
        ("call_2", "stop", "{}"),
    ]
    calls, reason = streamed_calls(ask(events, tools=TOOLS, stream=True))
    assert calls[0] == {"id": "call_1", "name": "add", "arguments": '{"a": 1}'}
    assert (len(calls), reason) == (2, "tool_calls")


@pytest.mark.parametrize("stream", [False, True])
def test_one_call_is_enough_without_parallel_calls(ask, stream):
    def answer(asked):
        asked.say(Started(3, 1), *CALLS)
        assert asked.cancelled.wait(120)  # the rest of the reply is not generated
        asked.say(finished("cancelled"))

    got = ask(answer, tools=TOOLS, parallel_tool_calls=False, stream=stream)
    if stream:
        calls, reason = streamed_calls(got)
        assert (len(calls), reason) == (1, "tool_calls")
    else:
        assert (len(got.choices[0].message.tool_calls), got.choices[0].finish_reason) == (1, "tool_calls")


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_is_the_reply(ask, served, stream):
    named = {"type": "function", "function": {"name": "add"}}
    got = ask(says(Piece('{"a"'), Piece(": 1}"), finished()), tools=TOOLS, tool_choice=named, stream=stream)
    assert served.service.asked[-1].request.json_schema == TOOLS[0]["function"]["parameters"]
    if stream:
        ((call,), reason) = streamed_calls(got)
    else:
        (choice,) = got.choices
        given, reason = choice.message.tool_calls[0], choice.finish_reason
        assert choice.message.content is None
        call = {"id": given.id, "name": given.function.name, "arguments": given.function.arguments}
    assert call.pop("id").startswith("call_")
    assert (call, reason) == ({"name": "add", "arguments": '{"a": 1}'}, "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_a_required_call_names_its_function(ask, stream):
    text = json.dumps({"name": "stop", "arguments": {"now": "ä"}})
    got = ask(says(*(Piece(one) for one in text), finished()), tools=TOOLS, tool_choice="required", stream=stream)
    if stream:
        ((call,), reason) = streamed_calls(got)
        assert (call["name"], json.loads(call["arguments"]), reason) == ("stop", {"now": "ä"}, "tool_calls")
    else:
        (call,) = got.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("stop", {"now": "ä"})
        assert got.choices[0].finish_reason == "tool_calls"


TOKENS = (
    Token(1, "It", -0.5, (Alternative(1, "It", -0.5), Alternative(2, "Ä", -1.5))),
    Token(3, "\N{REPLACEMENT CHARACTER}", float("-inf")),
)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities(ask, stream):
    got = ask(says(Piece("It", "content", TOKENS), finished()), logprobs=True, top_logprobs=2, stream=stream)
    if stream:
        (entries,) = [chunk.choices[0].logprobs.content for chunk in got if chunk.choices[0].logprobs]
    else:
        entries = got.choices[0].logprobs.content
    first, part = entries
    assert (first.token, first.logprob, first.bytes) == ("It", -0.5, [73, 116])
    assert [(one.token, one.logprob, one.bytes) for one in first.top_logprobs] == [
        ("It", -0.5, [73, 116]),
        ("Ä", -1.5, [195, 132]),
    ]
    assert (part.logprob, part.bytes, part.top_logprobs) == (-9999.0, None, [])  # JSON has no infinity


def test_plain_completions(served):
    def answer(asked):
        asked.say(Started(3, 1), Piece(asked.request.prompt.upper(), "content", TOKENS), finished("length"))

    served.service.answer = answer
    got = served.openai.completions.create(model="base", prompt=["a", "b"], logprobs=2)
    assert [(choice.index, choice.text, choice.finish_reason) for choice in got.choices] == [
        (0, "A", "length"),
        (1, "B", "length"),
    ]
    logprobs = got.choices[0].logprobs
    assert (logprobs.tokens[0], logprobs.token_logprobs[0], logprobs.text_offset) == ("It", -0.5, [0, 2])
    assert logprobs.top_logprobs[0] == {"It": -0.5, "Ä": -1.5}
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (6, 4)
    stream = served.openai.completions.create(
        model="base", prompt="a", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [chunk.choices[0].text for chunk in chunks[:-1]] == ["A", ""]
    assert (chunks[-2].choices[0].finish_reason, chunks[-1].usage.total_tokens) == ("length", 5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [
        ("invalid", openai.BadRequestError, "invalid_value"),
        ("too_long", openai.BadRequestError, "context_length_exceeded"),
        ("busy", openai.RateLimitError, "queue_full"),
        ("model_gone", openai.APIStatusError, "model_gone"),
        ("untrusted", openai.PermissionDeniedError, "code_not_allowed"),
        ("out_of_memory", openai.InternalServerError, "out_of_memory"),
        ("engine", openai.InternalServerError, "engine_failed"),
    ],
)
def test_a_failure_has_its_status(ask, kind, error, code, stream):
    with pytest.raises(error) as failed:
        ask(fails(kind, "The sentence."), stream=stream)
    assert (failed.value.body["message"], failed.value.code) == ("The sentence.", code)
    status = failed.value.status_code
    assert status == {"model_gone": 410, "out_of_memory": 503, "engine": 503}.get(kind, status)
    assert ("retry-after" in failed.value.response.headers) == (status in {429, 503})


def test_a_failure_within_a_stream_ends_it_with_an_error(ask):
    with pytest.raises(openai.APIError, match=r"The engine ended\. Ask again\."):
        list(ask(says(Piece("It"), Failed("engine", "The engine ended.", "Ask again.")), stream=True))


def test_models_are_listed(served):
    assert [model.id for model in served.openai.models.list()] == ["base", "tuned"]
    card = served.openai.models.retrieve("tuned")
    assert (card.id, card.root, card.max_model_len) == ("tuned", "owner/base", 1024)
    with pytest.raises(openai.NotFoundError, match="Expected one of: base, tuned"):
        served.openai.models.retrieve("gpt-5")
    with pytest.raises(openai.NotFoundError, match="gpt-5"):
        served.openai.chat.completions.create(model="gpt-5", messages=HELLO)


def test_a_picture_for_a_model_that_reads_none_is_refused(ask, served):
    content = [{"type": "image_url", "image_url": {"url": picture_url(picture_file())}}]
    with pytest.raises(openai.BadRequestError, match="base reads no pictures"):
        ask(messages=[{"role": "user", "content": content}])
    served.service.sees_images = True
    assert ask(messages=[{"role": "user", "content": content}]).choices[0].message.content == "Hello"
    served.service.sees_images = False
