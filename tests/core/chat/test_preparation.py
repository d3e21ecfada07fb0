"""What a client chooses costs no engine its time: long texts and JSON schemas are prepared in a process apart."""

import pytest

from llf_core.chat import engine_process
from llf_core.chat.request import ChatRequest, Failed, Finished, Piece, RequestError
from llf_core.chat.service import ChatService

COSTLY = {"allOf": [{"type": "string", "pattern": f".*{number}.*"} for number in range(50)]}
"""It takes llguidance more than a minute and 4 GB, in 1.5 kB."""
CIRCLE = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
LONG = "the sea and the ship " * 1200

pytestmark = pytest.mark.usefixtures("warm_python")


@pytest.fixture(scope="module")
def service(endless_model_dir, tmp_path_factory):
    service = ChatService(home=tmp_path_factory.mktemp("home"))
    service.add(endless_model_dir, "base")
    yield service
    service.close()


def ask(service, text="one two", **fields):
    messages = ({"role": "user", "content": text},)
    return service.reply("base", ChatRequest(messages=messages, **({"max_tokens": 4} | fields)))


def text(events):
    assert isinstance(events[-1], Finished), events[-1]
    return "".join(one.text for one in events if isinstance(one, Piece))


def test_a_long_prompt_is_read_as_a_short_one_is(service, monkeypatch):
    apart = ask(service, LONG)
    monkeypatch.setattr(engine_process, "MAX_DIRECT", 10_000_000)
    direct = ask(service, LONG)
    assert text(apart) == text(direct)
    assert apart[-1].prompt_tokens == direct[-1].prompt_tokens > 5000


def test_a_schema_is_followed(service):
    assert text(ask(service, json_schema={"enum": ["ship"]}, max_tokens=40)) == '"ship"'


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (COSTLY, "json_schema takes too long to prepare"),
        (CIRCLE, "fits no value"),
        ({"type": "integer", "minimum": 2**63}, "is not supported"),
        ({"type": "string", "pattern": "((a"}, "regular expression: unclosed group"),
        ({"type": "string", "pattern": "^(([a-z]{1,100}){1,100}){1,100}$"}, "is not supported"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_the_fault_of_the_request(service, schema, words):
    (failed,) = ask(service, json_schema=schema)
    assert failed.kind == "invalid", failed
    assert words in failed.message


def test_a_reply_of_which_the_schema_becomes_too_complex_is_no_answer(service):
    """Its optional properties are more than llguidance follows after the first token, which it takes for the end."""
    schema = {"type": "object", "properties": {f"property{number}": {"type": "string"} for number in range(500)}}
    (failed,) = ask(service, json_schema=schema)
    assert failed.kind == "invalid", failed


def test_a_text_that_cannot_fit_is_refused_by_its_characters(service):
    text(ask(service))
    longest, context = service.state("base").longest_token, service.state("base").context
    (failed,) = ask(service, "x" * (longest * context))
    assert failed == Failed(
        "too_long",
        f"The prompt has at least {context:,} tokens; the model reads {context:,}, with its reply.",
        "Shorten the conversation, or begin a new one.",
    )


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"description": "x" * 70_000}, "json_schema has 70,019 bytes. Expected at most 65,536."),
        ({"patternProperties": {str(one): {"pattern": "a"} for one in range(40)}}, "has 80 regular expressions"),
    ],
)
def test_a_schema_has_bounds(schema, words):
    with pytest.raises(RequestError, match=words):
        ChatRequest(prompt="a", json_schema=schema)
