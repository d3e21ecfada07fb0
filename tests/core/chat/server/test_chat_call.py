"""What a request to `/v1/chat/completions` or `/v1/completions` may say, and the sentence about what it may not."""

import pytest

from llf_core.chat.picture import picture_url
from llf_core.chat.server.completions import read_chat_call, read_completion_call
from llf_core.chat.server.request_body import ApiError
from tests.tiny import picture_file

HELLO = [{"role": "user", "content": "Hello"}]
PICTURE = picture_url(picture_file())
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "required": ["a"]}}}
OTHER = {"type": "function", "function": {"name": "stop"}}


def read(**fields):
    return read_chat_call({"model": "base", "messages": HELLO} | fields)


def message(**fields):
    return read(messages=[{"role": "user"} | fields])


def test_a_request_is_read_with_all_its_fields():
    call = read(
        temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, logit_bias={"7": -100}, seed=11, n=2, max_completion_tokens=9, stop="END",
        logprobs=True, top_logprobs=3, stream=True, stream_options={"include_usage": True}, user="me",
        metadata={"a": "b"}, store=False,
        chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low", tools=None, parallel_tool_calls=False,
    )  # fmt: skip
    first, second = call.requests
    assert (first.sampling.seed, second.sampling.seed) == (11, 12)  # or both replies would be the same
    assert first.sampling.logit_bias == {7: -100.0}
    assert (first.sampling.temperature, first.sampling.top_k, first.sampling.repetition_penalty) == (0.5, 5, 1.1)
    assert (first.max_tokens, first.stop, first.logprobs, first.top_logprobs) == (9, ("END",), True, 3)
    assert first.template_options == {"enable_thinking": False, "reasoning_effort": "low"}
    assert (call.stream, call.include_usage, call.one_call) == (True, True, True)


def test_what_is_left_out_has_the_defaults_of_openai():
    (request,) = read().requests
    assert (request.sampling.temperature, request.sampling.top_p, request.max_tokens) == (1.0, 1.0, None)
    assert read(temperature=None, n=None, stop=None, stream=None) == read()


def test_messages_keep_what_templates_read():
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What?"},
                                     {"type": "image_url", "image_url": {"url": PICTURE}}]},
        {"role": "assistant", "content": None, "refusal": None, "annotations": [], "reasoning_content": "Hm.",
         "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]  # fmt: skip
    call = read(messages=messages)
    system, user, assistant, tool = call.requests[0].messages
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"][1] == {"type": "image_url", "image_url": {"url": PICTURE}}
    assert assistant["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert (assistant["content"], assistant["reasoning_content"]) == ("", "Hm.")
    assert tool == {"role": "tool", "content": "2", "tool_call_id": "c1"}
    assert call.has_pictures


def test_tool_choice_offers_or_forces_tools():
    none = read(tools=[TOOL], tool_choice="none").requests[0]
    assert (none.tools, none.json_schema) == ((), None)
    auto = read(tools=[TOOL]).requests[0]
    assert (auto.tools[0]["function"]["name"], auto.json_schema) == ("add", None)
    named = read(tools=[TOOL, OTHER], tool_choice={"type": "function", "function": {"name": "add"}}).requests[0]
    assert named.json_schema == TOOL["function"]["parameters"]
    any_of = read(tools=[TOOL, OTHER], tool_choice="required").requests[0].json_schema["anyOf"]
    assert [one["properties"]["name"]["const"] for one in any_of] == ["add", "stop"]


def test_response_format_becomes_a_schema():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wrapped = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    assert read(response_format=wrapped).requests[0].json_schema == schema
    assert read(response_format={"type": "json_object"}).requests[0].json_schema == {}
    assert read(response_format={"type": "text"}).requests[0].json_schema is None


STRICT = {"type": "function", "function": {"name": "add", "strict": True}}


NAN = '{"a": NaN}'  # as Python's `json` reads and writes it


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"model": None}, "model", "is missing. Expected the name of a model"),
        ({"model": 3}, "model", "is 3. Expected text"),
        ({"messages": []}, "messages", "Expected a list of at least one message"),
        ({"messages": "Hello"}, "messages", 'is "Hello". Expected a list of messages'),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "developer, user, assistant or tool"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing. Expected text or a list of parts"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "is []. Expected text"),
        ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages[0].colour", "is unknown"),
        ({"temperature": -1}, "temperature", "is -1.0. Expected a number from 0"),
        ({"temperature": True}, "temperature", "is true. Expected a number"),
        ({"temperature": float("nan")}, "temperature", "Expected a number"),
        ({"temperature": 10**400}, "temperature", "Expected a finite number"),
        ({"top_p": 0}, "top_p", "above 0"),
        ({"n": 0}, "n", "is 0. Expected an integer from 1 to 16"),
        ({"n": 1.5}, "n", "Expected an integer"),
        ({"seed": 2**70}, "seed", "Expected an integer"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "the value of max_completion_tokens, 2"),
        ({"stop": [""]}, "stop", "each of 1 to 1000 characters"),
        ({"stop": ["a"] * 17}, "stop", "at most 16"),
        ({"top_k": -2}, "top_k", "at least -1"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty", "is 1e-300. Expected a number from 0.001 to 100"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "tools beside it"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": NAN}}]}]},
            "messages[0].tool_calls[0].function.arguments",
            "a JSON object as text",
        ),
        ({"logit_bias": {"x": 1}}, "logit_bias", "for each token id"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "from -100 to 100"),
        ({"logit_bias": {"1": 1, "01": 2}}, "logit_bias", "for each token id"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs: true beside it"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true beside it"),
        ({"service_tier": "priority"}, "service_tier", "auto or default"),
        ({"modalities": ["audio"]}, "modalities", '["text"]'),
        ({"functions": []}, "functions", "Send tools instead"),
        ({"prediction": {}}, "prediction", "is not supported"),
        ({"colour": 1}, "colour", "is unknown"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs", "variables of the chat"),
        ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs", "variables of the chat"),
        ({"continue_final_message": True}, "continue_final_message", "a last message of the role assistant"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "text, json_object or json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "is missing"),
        ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, "response_format", "Expected one of them"),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name", "that no other tool has"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "letters, digits"),
        ({"tools": [STRICT]}, "tools[0].function.strict", "only if tool_choice forces the call"),
        ({"tool_choice": "required"}, "tool_choice", "tools beside it"),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice", "none, auto, required"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "sub"}}},
         "tool_choice.function.name", 'is "sub". Expected add'),
    ],
)  # fmt: skip
def test_what_a_request_may_not_say(fields, param, words):
    with pytest.raises(ApiError) as refused:
        read(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://10.0.0.1/secret.png", "no address and no file is opened"),
        ("/etc/passwd", "no address and no file is opened"),
        ("data:image/png;base64,§§§§", "valid Base64"),
        ("data:image/png;base64,AAAA", "cannot be read. Expected a picture in PNG, JPEG, WebP or GIF"),
    ],
)
def test_a_picture_is_inside_the_request(url, words):
    with pytest.raises(ApiError, match=words) as refused:
        message(content=[{"type": "image_url", "image_url": {"url": url}}])
    assert refused.value.param == "messages[0].content[0].image_url.url"


def test_a_strict_tool_can_be_forced():
    assert read(tools=[STRICT], tool_choice="required").choice.function == "add"


def test_plain_completions_are_read():
    call = read_completion_call({"model": "base", "prompt": ["a", "b"], "n": 2, "logprobs": 0, "seed": 1})
    assert [request.prompt for request in call.requests] == ["a", "a", "b", "b"]
    assert [request.sampling.seed for request in call.requests] == [1, 2, 1, 2]
    assert [(request.logprobs, request.max_tokens) for request in call.requests] == [(True, 16)] * 4


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt": None}, "prompt", "is missing"),
        ({"prompt": [1, 2]}, "prompt", "token ids are not supported"),
        ({"prompt": "x", "echo": True}, "echo", "put it after the prompt yourself"),
        ({"prompt": "x", "suffix": "y"}, "suffix", "is not supported"),
        ({"prompt": "x", "best_of": 3}, "best_of", "n, 1"),
        ({"prompt": ["x"] * 100, "n": 2}, "prompt", "200 replies. Expected at most 128"),
        ({"prompt": "x", "messages": HELLO}, "messages", "is unknown"),
    ],
)
def test_what_a_plain_completion_may_not_say(fields, param, words):
    with pytest.raises(ApiError) as refused:
        read_completion_call({"model": "base"} | fields)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert words in refused.value.message
