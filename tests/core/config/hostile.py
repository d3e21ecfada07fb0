"""Configs that nobody writes by accident, made from a seed: damaged text, values of every kind in every key."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from llf_core.config import fields

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = "dataset: llf_demo\nmax_steps: 3\n"
VALUES = (
    "!!int x", "!!float x", "!!bool 3", "!!timestamp 2001-12-14t21:59:43.10-05:00", "!!binary aGk=", "!!set {a, b}",
    "!!omap [a: 1]", "!!python/name:os.system", "!!python/object/apply:os.system [id]", "!foreign x", "!!null x",
    "!!str {a: b}", "!!map [1]", "!!seq {a: b}", "2001-13-45", "0b1", "0o17", "0x1F", "1_000", "1:30:00", "+.inf",
    "-.inf", ".nan", "1e400", "-1e-400", "9" * 18, "9" * 19, "9" * 400, "9" * 5000, "-" + "9" * 5000, "1." + "0" * 5000,
    "0." + "0" * 4000 + "1", "[]", "{}", "[[]]", "[~]", "{~: ~}", "[1, [2, {a: [3]}]]", "{a: {b: {c: {d: 1}}}}",
    "[" * 64 + "]" * 64, "[" * 1500 + "]" * 1500, "{a: " * 1200 + "1" + "}" * 1200, "'" + "a" * 5000 + "'",
    "'/" + "a/" * 2500 + "b'", "'./" + "../" * 2000 + "etc/passwd'", "~/x", "~nobody/x", "'~' ", "'  '", "''", '"\\0"',
    '"a\\0b"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u202Eabc"', '"\\x1b[31mred"', '"\\n\\n"', '"\\t"', '"\\x7f"', "😀",
    "ﬀ", "\ufeff", "'\u2028'", "/dev/zero", "/dev/stdin", "/proc/self/mem", "/proc/self/fd/0", "/", ".", "..", "//",
    "/etc/shadow/x", "file:///etc/passwd", "http://[::1", "http://user:pass@host/x", "s3://", "s3://bucket", "hf://x",
    "a/b/c/d", "a//b", "/b", "a/", "-", "--help", "@x", "`x`", "%x", "&x", "*x", "&a [*a]", "|", ">", "|\n  text\n",
    "yes", "NO", "on", "null", "NULL", "true", "TRUE", "1", "0", "-1", "1.5", "-0.0", "all", "none", "x,y,,z", ",",
    "[1, two, 3.0, null, true]", "{sft: 1}", "[true]", "['\\0']", "[" + "1," * 25_000 + "]", "\xa0", "'%s%n'", "'{0}'",
    "'${HOME}'", "'$(id)'", "'{{ 7*7 }}'", "'[bold]x[/]'", "'[/]'", "<<", "? x", "- x", "key: value", "a: b: c",
)  # fmt: skip
"""What stands behind a key."""
TEXTS = (
    "", " ", "\n", "---", "...", "--- a", "---\n---", "%YAML 1.1", "%YAML 9.9\n---\na: 1", "%TAG ! x", "{", "[", "}",
    "]", "'", '"', "a", "- a", "1", "null", "~", "true", ":", ": :", "::", "? ", "? a", "? [a]\n: b", "? {a: b}\n: c",
    "a: b: c", "a:\tb", "\ta: b", " a: b\nc: d", "a: b\n c: d", "a: |\nb", "a: >9\n x", "&a a: *a", "*a", "&a",
    "&a &b c: d", "!!", "!<x> a", "a: !<", "<<: {seed: 1}", "<<: *a", "a: 1\na: 2", "a: {b: 1, b: 2}", "#", "# only",
    "a: '", 'a: "', 'a: "\\q"', 'a: "\\u12"', "a: @", "a: `", "a: %", "{a: 1", "{a: 1}}", '{"a": 1,}', '{"a": NaN}',
    '{"a": 1e999}', '{"seed": ' + "9" * 5000 + "}", '{"seed": ' + "9" * 400 + "}", '{"a": ' + "[" * 5000, "[" * 5000,
    "{" * 5000, "- " * 5000, "? " * 5000, "a: " * 5000, "-" * 5000, "a" * 5000, "a" * 5000 + ": 1", "&a " * 2000,
    '{"seed": 1, "seed": 2}', '{"a": {"b": 1, "b": 2}}', '{"\\u0000": 1}', '{"seed": "\\ud800"}', "\0", "a: \0",
    "a: \x07", "\x1b[2J", "\ufeffdataset: llf_demo", "\ufffe", "a: \x85b", "a: \u2028b", "\r", "a: 1\rb: 2\r\n",
    "[1, 2]: 3", "{a: b}: c", "1: 2", "true: 1", "null: 1", "~: 1", "'': 1", '"\\0": 1', "2001-01-01: 1", "1.5: 2",
    ".nan: 1", "a: &x {b: *x}", "a: &x [1, 2]\nb: [*x, *x]", "- - - -", "!!python/object:x {}", "!!set {a}",
)  # fmt: skip
"""Whole configs."""


def bomb(levels: int, wide: int) -> str:
    """Anchors that name each other: `wide ** levels` values."""
    lines = [f"a0: &a0 [{', '.join(['x'] * wide)}]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * wide)}]" for level in range(1, levels)]
    return "\n".join(lines)


def hostile(seed: int) -> bytes:
    """The text of one config; every seed gives another kind of trouble, and always the same."""
    chance = random.Random(seed)
    kinds: list[Callable[[random.Random], bytes]] = [_one_value, _one_value, _several, _text, _damaged, _as_json, _bomb]
    return kinds[seed % len(kinds)](chance)


def _key(chance: random.Random) -> str:
    return chance.choice(fields()).key


def _one_value(chance: random.Random) -> bytes:
    return _encoded(f"{BASE}{_key(chance)}: {chance.choice(VALUES)}\n")


def _several(chance: random.Random) -> bytes:
    lines = [f"{_key(chance)}: {chance.choice(VALUES[:-5])}\n" for _ in range(chance.randint(2, 8))]
    return _encoded(("" if chance.random() < 0.5 else BASE) + "".join(lines))


def _text(chance: random.Random) -> bytes:
    return _encoded(chance.choice(("", BASE)) + chance.choice(TEXTS))


def _damaged(chance: random.Random) -> bytes:
    """A good config with bytes that were changed, cut, doubled or put in."""
    keys = [spec for spec in fields() if isinstance(spec.default, int | float | str)]
    some = chance.sample(keys, 12)
    data = bytearray(_encoded(BASE + "".join(f"{one.key}: {json.dumps(one.default)}\n" for one in some)))
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                del data[place : place + chance.randint(1, 30)]
            case 2:
                data[place:place] = data[place : place + chance.randint(1, 30)]
            case _:
                data[place:place] = chance.choice(
                    (b"\0", b"\xff", b"\xed\xa0\x80", b"&a ", b"*a", b"!!int ", b"{", b"\t")
                )
        data = data or bytearray(b" ")
    return bytes(data)


def _as_json(chance: random.Random) -> bytes:
    odd = [
        None,
        True,
        [],
        {},
        [[[]]],
        {"a": {"b": []}},
        "",
        "\0",
        "\ud800",
        10**30,
        -(10**400),
        1e308,
        float("nan"),
        -1,
    ]
    values = {_key(chance): chance.choice(odd) for _ in range(chance.randint(1, 5))}
    return _encoded(json.dumps({"dataset": "llf_demo", **values}))


def _bomb(chance: random.Random) -> bytes:
    return _encoded(BASE + bomb(chance.randint(2, 40), chance.randint(2, 12)))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
