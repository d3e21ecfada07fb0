"""Replaces secrets in text, in streams, and in URLs, which are stored without and passed on with them."""

from __future__ import annotations

import io
import json
import math
import os
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from llf_core.redaction.secret_patterns import (
    EMBEDDED,
    NAMED,
    SECRET_NAMES,
    SERVICE_KEYS,
    VARIABLE,
    compiled,
    split_words,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MARK = "***"

MIN_SECRET_CHARACTERS = 6
"""Minimum length of an environment value to search for; shorter ones occur in ordinary words. Chosen by hand."""

ENVIRONMENT_CACHE_SECONDS = 0.2
"""Seconds for which a scan of the environment is reused, unless the number of variables changes."""

MIN_ARRAY_CHARACTERS = 4096
"""A text of more characters than this without a space, `_`, `-` or `.` is chart data (base64) and is not searched."""

_KEPT = re.compile(
    r"\A(?:(?:amp;)?(?:%3F|%26)?[\w-]+(?:=|%3D)|(?:bearer|basic|authorization: *token)\s+)", re.IGNORECASE
)


def redact(text: str, *, named: bool = True) -> str:
    """Replace each secret in a text with `MARK`.

    Secrets are: values of environment variables with names such as `HF_TOKEN` or `WANDB_API_KEY`, user name and
    password in URLs, URL parameters such as `token=` or `X-Amz-Signature=`, authorization headers, assignments such as
    `API_KEY=…`, values of such names in JSON, YAML and command lines, cookies, private keys, and keys of well-known
    services. Environment values that occur in ordinary text (shorter than `MIN_SECRET_CHARACTERS`, short numbers,
    lower-case words, URLs, existing paths) are not replaced. Nor are values without quotes that prose could have behind
    such a name: those of fewer than six characters (four on a command line) and, except in a line of YAML, those
    without a digit.

    Args:
        named: whether the patterns of `named_secrets` apply. They can match ordinary prose, code and closing quotes, so
            texts of a model (prompts, conversations, predictions) and YAML configs are redacted without them.
    """
    return _replace_secrets(text, _environment_secrets(), named=named)


def redact_nested(value: object, *, named: bool = True) -> Any:
    """Redact every string in a copy of a JSON-like value; one under a key such as `password` is replaced entirely.

    Args:
        value: dicts, lists, tuples (which become lists) and scalars, without cycles.
        named: see `redact`; a string under a key such as `password` is replaced in any case.
    """
    return _redact_nested(value, _environment_secrets(), named=named)


def _environment_secrets() -> tuple[str, ...]:
    """Secrets in this process's environment, as written, percent-encoded and as JSON writes them.

    Longest first, so that a secret that contains another one is replaced as a whole. Cached, since `redact` is called
    for each line of a log.
    """
    now, count = time.monotonic(), len(os.environ)
    if count != _known.count or now - _known.at > ENVIRONMENT_CACHE_SECONDS:
        _known.at, _known.count, _known.values = (
            now,
            count,
            _encoded_forms(
                tuple(value for name, value in os.environ.items() if _is_variable(name)),
                tuple(value for value in os.environ.values() if "@" in value and "://" in value),
            ),
        )
    return _known.values


@dataclass
class _EnvironmentSecrets:
    at: float = -math.inf
    count: int = -1
    values: tuple[str, ...] = ()


_known = _EnvironmentSecrets()


def _redact_nested(value: object, known: tuple[str, ...], *, named: bool) -> object:
    if isinstance(value, str):
        return _replace_secrets(value, known, named=named)
    if isinstance(value, dict):
        return {
            key: MARK
            if isinstance(one, str) and one and isinstance(key, str) and _is_strong(key)
            else _redact_nested(one, known, named=named)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact_nested(one, known, named=named) for one in value]
    return value


def _replace_secrets(text: str, known: tuple[str, ...], *, named: bool) -> str:
    if len(text) > MIN_ARRAY_CHARACTERS and not any(sign in text for sign in " _-."):
        return text
    # URLs first, so that their redacted form does not depend on the environment.
    for marks, pattern in (*EMBEDDED, *NAMED) if named else EMBEDDED:
        if all(any(mark in text for mark in group) for group in marks):
            text = pattern.sub(_kept, text)
    for mark, key_format in SERVICE_KEYS:
        if mark in text:
            text = compiled(key_format).sub(MARK, text)
    for value in known:
        if value in text:
            text = text.replace(value, MARK)
    return text


def _kept(found: re.Match[str]) -> str:
    """A match without its secret: parameter name, authorization scheme, or the `@` after a password stay."""
    text = found[0]
    if "secret" in found.re.groupindex:
        return text[: found.start("secret") - found.start()] + MARK + text[found.end("secret") - found.start() :]
    if text.endswith(("@", "%40")):
        return MARK + ("@" if text.endswith("@") else "%40")
    begin = _KEPT.match(text)
    return (begin[0] if begin else "") + MARK


def is_secret_name(name: str) -> bool:
    """Whether a name such as `api_key`, `X-API-Key` or `HF_TOKEN` denotes a secret, so that its value is not stored."""
    return _is_strong(name) or _is_variable(name)


@lru_cache(maxsize=4096)
def _is_strong(name: str) -> bool:
    return SECRET_NAMES.search(split_words(name)) is not None


@lru_cache(maxsize=4096)
def _is_variable(name: str) -> bool:
    return name not in {"PWD", "OLDPWD"} and VARIABLE.search(name.upper()) is not None


@lru_cache(maxsize=64)
def _encoded_forms(values: tuple[str, ...], addresses: tuple[str, ...]) -> tuple[str, ...]:
    found = set()
    passwords = [password for text in addresses for one in text.split() for password in _password(one)]
    for value in (*values, *passwords):
        for one in (value, value.strip()):
            if _may_be_secret(one):
                found |= {
                    one,
                    quote(one, safe="", errors="surrogateescape"),
                    json.dumps(one)[1:-1],
                    json.dumps(one, ensure_ascii=False)[1:-1],
                }
    return tuple(sorted(found, key=len, reverse=True))


def _password(value: str) -> tuple[str, ...]:
    """The password of a URL, as written and percent-decoded."""
    try:
        password = urlsplit(value).password
        return (password, unquote(password)) if password else ()
    except ValueError:
        return ()


def _may_be_secret(value: str) -> bool:
    """Whether an environment value is searched for. URLs, paths, words and short numbers are not."""
    if (
        len(value) < MIN_SECRET_CHARACTERS
        or (value.isdecimal() and len(value) < 2 * MIN_SECRET_CHARACTERS)
        or "://" in value
    ):
        return False
    if value[0] in "/~.":
        return not os.path.exists(os.path.expanduser(value))  # noqa: PTH110, PTH111 - they raise nothing, whatever it is
    return not value.isalpha() or len(value) > 2 * MIN_SECRET_CHARACTERS or not value.islower()


BEGIN, END, KEY = "-----BEGIN ", "-----END ", "PRIVATE KEY"

MAX_KEY_LINES = 300
"""Maximum lines of a private key, chosen by hand: an RSA key of 16,384 bits has 200."""


class RedactedStream(io.TextIOWrapper):
    """Removes secrets from the text written to it, including private keys written line by line (`MAX_KEY_LINES`)."""

    _key_lines = 0
    """Lines since a private key has begun; 0 outside of one."""

    def write(self, text: str) -> int:
        """Write text without its secrets, and return the original length. A secret in two calls is not found."""
        super().write(redact(self._outside_keys(text) if self._key_lines or BEGIN in text else text))
        return len(text)

    def _outside_keys(self, text: str) -> str:
        kept = []
        for line in text.splitlines(keepends=True):
            if self._key_lines:
                self._key_lines += line.endswith(("\n", "\r"))  # `print` writes the end of a line by itself
                if END in line or self._key_lines > MAX_KEY_LINES:
                    self._key_lines = 0
                continue
            begins = BEGIN in line and KEY in line
            self._key_lines = 1 if begins and END not in line else 0
            kept.append(f"{MARK}\n" if begins else line)
        return "".join(kept)


URLS_VARIABLE = "LLF_URLS"
"""Environment variable with the full URLs, separated by spaces."""


def split_url_secrets(values: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    """Separate URL credentials from config values.

    Args:
        values: config values by key: strings, in which commas separate several, or lists of them.

    Returns:
        The changed values with redacted URLs, by key, and the full URLs for the environment.
    """
    changes: dict[str, object] = {}
    whole: list[str] = []
    for key, value in values.items():
        parts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        texts = [one.strip() for part in parts if isinstance(part, str) for one in part.split(",")]
        found = [one for one in texts if "://" in one and _without_secrets(one) != one]
        if found:
            whole += found
            redacted = [
                ",".join(map(_without_secrets, one.split(","))) if isinstance(one, str) else one for one in parts
            ]
            changes[key] = redacted[0] if isinstance(value, str) else redacted
    return changes, whole


def restore_url(address: str) -> str:
    """Return the first full URL that matches a redacted one.

    Args:
        address: URL as stored in the run; one without `***` is returned unchanged.

    Raises:
        LookupError: the environment variable `LLF_URLS` does not contain it; the text is a sentence for the user.
    """
    if MARK not in address:
        return address
    for one in os.environ.get(URLS_VARIABLE, "").split():
        if _without_secrets(one) == address:
            return one
    raise LookupError(_missing_message(address))


def missing_url_secrets(values: Mapping[str, object], environment: Mapping[str, str], what: str) -> dict[str, str]:
    """Find redacted URLs in a config whose credentials are missing: by key, a sentence about the first one.

    Args:
        values: config values by key: strings, in which commas separate several, or lists of them.
        what: verb for the message, for example `resume`.
    """
    known = {_without_secrets(one) for one in environment.get(URLS_VARIABLE, "").split()}
    found: dict[str, str] = {}
    for key, value in values.items():
        parts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        texts = [one.strip() for part in parts if isinstance(part, str) for one in part.split(",")]
        lacking = [one for one in texts if "://" in one and MARK in one and one not in known]
        if lacking:
            found[key] = _missing_message(lacking[0], what)
    return found


def _without_secrets(text: str) -> str:
    return redact(text, named=False)


def _missing_message(address: str, what: str = "resume") -> str:
    return (
        f"{address} was given with a password or a key, which is not stored with the run. Set the environment variable "
        f"{URLS_VARIABLE} to the whole address (several with blanks between them), then {what}."
    )
