"""JSON and YAML of strangers: plain data within limits, or a sentence with the line; never a trace, never long."""

import json

import pytest

from llf_core.untrusted import NotPlainError, json_value
from llf_core.untrusted.plain_json import MAX_DEPTH
from llf_core.untrusted.plain_yaml import MAX_NODES, Document, yaml_value

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{chr(98 + place)}: &{chr(98 + place)} [{','.join(['*' + chr(97 + place)] * 9)}]" for place in range(9)
)
CHAIN = "k0: &k0 [1]\n" + "\n".join(f"k{place}: &k{place} [*k{place - 1}]" for place in range(1, 500))
BAD = [
    ("a: !!int x", 1, "'x' is not an integer"),
    ("b: 1\na: !!float x", 2, "'x' is not a number"),
    ("a: !!bool maybe", 1, "'maybe' is neither true nor false"),
    ("a: !!timestamp 2001-01-01", 1, "the tag '!!timestamp' is not known"),
    ("a: !!python/object/apply:os.system [ls]", 1, "the tag '!!python/object/apply:os.system' is not known"),
    ("a: !!binary aGk=", 1, "the tag '!!binary' is not known"),
    ("a: " + "9" * 5000, 1, "has 5,000 digits. Expected at most 18"),
    ("\na: 9223372036854775808", 2, "has 19 digits"),
    ("a: " + "[" * 2000, 1, "nested more than 64 levels deep"),
    ("- " * 1500 + "a", 1, "nested more than 64 levels deep"),
    ("b: 1\na: x\0y", 2, "it has the character U+0000"),
    ("x: 1\ny: {q: 1, q: 2}", 2, "the key 'q' occurs twice in one mapping"),
    ("a: &a [1, *a]", 1, "nested more than 64 levels deep"),
    (CHAIN, 63, "nested more than 64 levels deep"),
    (BOMB, 5, "it has more than 20,000 values"),
    ("a: [" + "1," * 30_000 + "]", 1, "it has more than 20,000 values"),
    ("a: *b", 1, "found undefined alias 'b'"),
    ("? [1]\n: 2", 1, "found unhashable key"),
    ("a: 1\n---\nb: 2", 2, "but found another document"),
    ("a: " + "x" * 1_100_000, None, "it has 1,100,003 characters. Expected at most 1,048,576 bytes"),
]


@pytest.mark.parametrize(("text", "line", "said"), BAD, ids=[said for _, _, said in BAD])
def test_what_is_not_plain_is_a_sentence_with_its_line(text, line, said):
    with pytest.raises(NotPlainError) as caught:
        yaml_value(text)
    assert (said in str(caught.value), caught.value.line) == (True, line), caught.value


def test_plain_yaml_is_as_before():
    text = "a: 2e-4\nb: no\nc: [1, ~, {d: .inf}]\ne: 2024-11-24\nf: '1'\ng: !!str 5\nh: 0x10\ni: &x [1]\nj: *x\n"
    assert yaml_value(text) == {
        "a": 2e-4,
        "b": "no",
        "c": [1, None, {"d": float("inf")}],
        "e": "2024-11-24",
        "f": "1",
        "g": "5",
        "h": "0x10",
        "i": [1],
        "j": [1],
    }
    assert Document("# nothing\n").empty
    assert Document("---\n# nothing\n").empty
    assert not Document("null\n").empty
    assert Document("a: 1\na: 2").pairs() == [("a", 1, 1), ("a", 2, 2)]
    assert Document("[1]").pairs() is None
    assert len(yaml_value("a: [" + "1," * (MAX_NODES - 10) + "]")["a"]) == MAX_NODES - 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested more than 64 levels deep"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 64 levels deep"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested more than 64 levels deep"),
        ("9" * 5000, "Exceeds the limit"),
        ('{"a": 1,\n}', "(line 2)"),
        (b"\xff\xfe\xfd", "not text in UTF-8"),
        ("", "Expecting value"),
    ],
)
def test_json_that_is_not_plain_is_a_sentence(text, said):
    with pytest.raises(NotPlainError, match=said.replace("(", r"\(").replace(")", r"\)")):
        json_value(text)


def test_plain_json_is_plain():
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json_value(deep) == json.loads(deep)
    wide = json.dumps([[number] for number in range(1000)])
    assert json_value(wide.encode()) == json.loads(wide)


@pytest.mark.parametrize(
    "data",
    [
        rb'{"\ud800": ["\udfff", {"a": "\ud83d\ude00"}]}',
        b'{"\xed\xa0\x80": ["\xed\xbf\xbf", {"a": "\xf0\x9f\x98\x80"}]}',
        r'{"\ud800": ["\udfff", {"a": "\ud83d\ude00"}]}'.encode("utf-16"),
    ],
)
def test_half_a_surrogate_pair_becomes_a_sign_that_can_be_written(data):
    value = json_value(data)
    json.dumps(value, ensure_ascii=False).encode()
    (inner,) = value.values()
    assert inner[1] == {"a": "\N{GRINNING FACE}"}


def test_half_a_surrogate_pair_in_yaml_becomes_one_too():
    assert yaml_value(r'{"\uD800": "a\uDFFF"}') == {"\N{REPLACEMENT CHARACTER}": "a\N{REPLACEMENT CHARACTER}"}


def test_a_document_is_refused_for_the_same_reason_twice():
    document = Document("a: {b: 1, b: 2}\n")
    for _ in range(2):
        with pytest.raises(NotPlainError, match="the key 'b' occurs twice in one mapping"):
            document.value()
