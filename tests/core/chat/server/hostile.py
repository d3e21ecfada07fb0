"""Requests that a hostile client sends to `/v1/chat/completions`: each is refused with 400."""

from __future__ import annotations

import json
import random
from typing import Any

LARGE = 8_000_000
"""Bytes of a large body, nearly as many as a server takes."""


def large_bodies() -> dict[str, bytes]:
    """Bodies that are costly in different ways, by name; of 8 MB, and a text of 120,000 tokens."""
    start = '{"model": "base", "messages": '
    message = start + '[{"role": "user", "content": '
    made = {
        "text": message + '"' + "the sea " * (LARGE // 8) + '"}]}',
        "text that may fit": message + '"' + "the sea ship " * 40_000 + '"}]}',
        "escaped": message + '"' + r"\u2603" * (LARGE // 6) + '"}]}',
        "surrogates": message + '"' + r"\ud800" * (LARGE // 6) + '"}]}',
        "signs": message + '"' + "[{," * (LARGE // 3) + '"}]}',
        "lists": start + "[" + "[]," * (LARGE // 3) + "[]]}",
        "keys": message + '"a"}], "metadata": {' + ",".join(f'"{one}":0' for one in range(LARGE // 11)) + "}}",
        "messages": start + "[" + '{"role":"user","content":"the sea"},' * (LARGE // 36) + "{}]}",
        "parts": message + "[" + '{"type":"text","text":"a"},' * (LARGE // 27) + "{}]}]}",
        "option": message + '"a"}], "chat_template_kwargs": {"a": [' + "1," * (LARGE // 2) + "1]}}",
        "picture": message
        + '[{"type": "image_url", "image_url": {"url": "data:image/png;base64,'
        + "A" * (LARGE - 200)
        + '"}}]}]}',
        "no end": start + "[" + "1," * 90_000 + '"' + "a" * (LARGE - 200_000),
    }
    return {name: text.encode() for name, text in made.items()}


def hostile_fields(number: int) -> dict[str, Any]:
    """Fields of a request that are refused, others for each number."""
    chosen = random.Random(number)
    some = chosen.randrange(2, 60)
    kinds = (_numbers, _schemas, _patterns, _circles, _messages, _fields)
    return kinds[number % len(kinds)](chosen, some)


def _numbers(chosen: random.Random, some: int) -> dict[str, Any]:
    name, values = chosen.choice(
        [
            ("repetition_penalty", [1e-300, 0, -1.0, 101, 2**63, 10**400]),
            ("temperature", [-0.1, 101, 1e300, 2**63, float("nan"), float("inf"), "1"]),
            ("top_p", [0, 1.1, -1, float("nan"), 2**64]),
            ("min_p", [-1e-9, 2, 10**30]),
            ("top_k", [-2, 2**63, 1.5, True, 10**30]),
            ("seed", [2**63, -(2**63) - 1, 1.5, "7", 10**400]),
            ("max_tokens", [0, -1, 2**63, 1.5, [1]]),
            ("n", [0, 17, -1, 2**63, 1e300]),
            ("presence_penalty", [2.1, -2.1, float("-inf"), {}]),
            ("logit_bias", [{"1": 101}, {"x": 1}, {str(2**63): 1}, {"-1": 1}, {"1": float("nan")}, [some]]),
            ("top_logprobs", [21, -1, 2**63, some]),
            ("stop", [["a"] * (16 + some), [some], {"a": 1}]),
        ]
    )
    return {name: chosen.choice(values)}


def _schemas(chosen: random.Random, some: int) -> dict[str, Any]:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(some):
        deep = {"allOf": [deep, {"type": "string", "pattern": f".*{some}.*"}]}
    return _schema(chosen.choice([
        {"allOf": [{"type": "string", "pattern": f".*{one}.*"} for one in range(40 + some)]},
        {"patternProperties": {f"a{one}": {} for one in range(65 + some)}},
        {"description": "x" * (66_000 + some)},
        {"enum": []},
        {"type": f"type{some}"},
        {"not": {"const": some}},
        {"type": "array", "uniqueItems": True, "minItems": some},
        {"type": "integer", "minimum": some, "maximum": some - 1},
        {"type": "integer", "minimum": 2**63 + some},
        {"$ref": f"https://example.org/{some}.json"},
        {"$ref": f"#/$defs/{some}"},
        {"properties": some},
    ]))  # fmt: skip


def _patterns(chosen: random.Random, some: int) -> dict[str, Any]:
    return _schema({"type": "string", "pattern": chosen.choice([
        f"^(([a-z]{{1,{some + 50}}}){{1,100}}){{1,100}}$",
        "(" * some,
        f"[{some}",
        f"a{{{some},1}}",
        r"(?=a)b" * some,
        r"(a)\1" * some,
        r"\p{NoSuchClass}" + str(some),
    ])})  # fmt: skip


def _circles(_: random.Random, some: int) -> dict[str, Any]:
    ring = {f"d{one}": {"$ref": f"#/$defs/d{(one + 1) % some}"} for one in range(some)}
    return _schema({"$defs": ring, "$ref": "#/$defs/d0"})


def _messages(chosen: random.Random, some: int) -> dict[str, Any]:
    nested: Any = "a"
    for _ in range(60 + some):
        nested = [nested]
    return {"messages": chosen.choice([
        [], some, [some], [{"role": "user"}], [{"role": f"role{some}", "content": "a"}], nested,
        [{"role": "user", "content": nested}],
        [{"role": "user", "content": [{"type": "text", "text": some}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"file:///{some}"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"http://127.0.0.1:{some}/"}}]}],
        [{"role": "user", "content": "a b " * (40_000 + some)}],
        [{"role": "user", "content": "a"}] * (10_001 + some),
        [{"role": "assistant", "tool_calls": [{"function": {"name": "a" * (64 + some), "arguments": "{}"}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "[" * some}}]}],
    ])}  # fmt: skip


def _fields(chosen: random.Random, some: int) -> dict[str, Any]:
    return chosen.choice([
        {f"field{some}": some}, {"echo": True}, {"model": ["base"]}, {"stream": "yes"}, {"response_format": some},
        {"response_format": {"type": f"type{some}"}}, {"tool_choice": {"type": "function", "function": {"name": "a"}}},
        {"tools": [{"type": "function", "function": {"name": "a"}}] * some}, {"tools": [{}] * (128 + some)},
        {"tools": [{"type": "function", "function": {"name": f"{some} ☃"}}]}, {"reasoning_effort": "a" * some},
        {"chat_template_kwargs": {"messages": [some]}}, {"chat_template_kwargs": {f"{some}": 1}},
        {"continue_final_message": True}, {"top_logprobs": some % 20}, {"prompt": "a" * some},
    ])  # fmt: skip


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


def body(number: int) -> bytes:
    """The body of the request with a number."""
    fields = {"model": "base", "messages": [{"role": "user", "content": "a"}], "max_tokens": 4}
    return json.dumps(fields | hostile_fields(number)).encode()


def hosts() -> list[str]:
    """Values of the header `Host` that are not this machine's."""
    return ["[localhost]evil.com", "evil.com", "localhost.evil.com", "127.0.0.1.evil.com", "[::1", "::1]", "[]",
            "localhost:80:80", "localhost@evil.com", "evil.com:8000", "127.0.0.2", "0", "a" * 1000]  # fmt: skip
