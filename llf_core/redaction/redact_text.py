"""Takes secrets out of texts."""

from __future__ import annotations

import json
import math
import os
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from llf_core.redaction.secret_patterns import EMBEDDED, ISSUED, STRONG, VARIABLE, plain_name

MARK = "***"
"""What stands in the place of a secret."""
LEAST = 6
"""Characters of a value that is looked for: a shorter one stands in many words."""
LOOK_AGAIN = 0.2
"""Seconds for which a look at the environment holds, where no variable has come or gone."""
ARRAY = 4096
"""Characters from which on a text without a blank, a dash or a dot is the numbers of a chart."""
_KEPT = re.compile(
    r"\A(?:(?:amp;)?(?:%3F|%26)?[\w-]+(?:=|%3D)|(?:bearer|basic|authorization: *token)\s+)", re.IGNORECASE
)


def redact(text: str) -> str:
    """A text in which `MARK` stands in the place of each secret.

    Secrets are: values of environment variables that are called so (`HF_TOKEN`, `WANDB_API_KEY`), name and password of
    addresses and their parameters such as `token=` or `X-Amz-Signature=`, values of headers, and what the keys of
    well-known services look like. A text without any is the same object.
    """
    return _without(text, known_values())


def redacted(value: Any) -> Any:
    """The same value with `redact` applied to every text in it; a text under a name such as `password` is a secret."""
    return _walk(value, known_values())


def known_values() -> tuple[str, ...]:
    """The secrets of this process's environment, in the forms in which they are written, the longest first."""
    now, count = time.monotonic(), len(os.environ)
    if count != _known.count or now - _known.at > LOOK_AGAIN:
        _known.at, _known.count, _known.values = (
            now,
            count,
            _forms(
                tuple(value for name, value in os.environ.items() if _is_variable(name)),
                tuple(value for value in os.environ.values() if "@" in value and "://" in value),
            ),
        )
    return _known.values


@dataclass
class _Known:
    """What the environment was last seen to hold."""

    at: float = -math.inf
    count: int = -1
    values: tuple[str, ...] = ()


_known = _Known()


def _walk(value: Any, known: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return _without(value, known)
    if isinstance(value, dict):
        return {
            key: MARK
            if isinstance(one, str) and one and isinstance(key, str) and _is_strong(key)
            else _walk(one, known)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_walk(one, known) for one in value]
    return value


def _without(text: str, known: tuple[str, ...]) -> str:
    if len(text) > ARRAY and not any(sign in text for sign in " _-."):
        return text
    # Addresses first, so that they look the same whatever the environment knows of them.
    for marks, pattern in EMBEDDED:
        if all(any(mark in text for mark in group) for group in marks):
            text = pattern.sub(_kept, text)
    for mark, pattern in ISSUED:
        if mark in text:
            text = pattern.sub(MARK, text)
    for value in known:
        if value in text:
            text = text.replace(value, MARK)
    return text


def _kept(found: re.Match[str]) -> str:
    """What stays of a match: the name of a parameter, a header's scheme, the sign behind a password."""
    text = found[0]
    if text.endswith("@"):
        return f"{MARK}@"
    begin = _KEPT.match(text)
    return (begin[0] if begin else "") + MARK


def is_secret_name(name: str) -> bool:
    """Whether a text of that name is a secret, as `api_key`, `X-API-Key` and `HF_TOKEN` are."""
    return _is_strong(name) or _is_variable(name)


@lru_cache(maxsize=4096)
def _is_strong(name: str) -> bool:
    return STRONG.search(plain_name(name)) is not None


@lru_cache(maxsize=4096)
def _is_variable(name: str) -> bool:
    return name not in {"PWD", "OLDPWD"} and VARIABLE.search(name.upper()) is not None


@lru_cache(maxsize=64)
def _forms(values: tuple[str, ...], addresses: tuple[str, ...]) -> tuple[str, ...]:
    found = set()
    passwords = [password for text in addresses for one in text.split() for password in _password(one)]
    for value in (*values, *passwords):
        for one in (value, value.strip()):
            if _tells(one):
                found |= {one, quote(one, safe=""), json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1]}
    return tuple(sorted(found, key=len, reverse=True))


def _password(value: str) -> tuple[str, ...]:
    """The password of an address, as it stands there and as it is meant."""
    try:
        password = urlsplit(value).password
        return (password, unquote(password)) if password else ()
    except ValueError:
        return ()


def _tells(value: str) -> bool:
    """Whether a value of a variable is looked for in texts: an address, a path, a word or a number is none."""
    if len(value) < LEAST or (value.isdecimal() and len(value) < 2 * LEAST) or "://" in value:
        return False
    if value[0] in "/~.":
        return not Path(value).expanduser().exists()
    return not value.isalpha() or len(value) > 2 * LEAST or not value.islower()
