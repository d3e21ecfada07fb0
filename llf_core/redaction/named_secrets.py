"""Patterns of secrets that stand behind a name: in JSON, YAML, code, command lines and HTTP headers."""

from __future__ import annotations

import re

_NAME = (
    r"(?<![A-Za-z0-9])(?:api[_-]?key|(?:secret[_-]?)?access[_-]?key|secret[_-]?key|private[_-]?key|account[_-]?key"
    r"|auth[_-]?key|(?:client[_-]?)?secret|passw(?:or)?d|passphrase|pwd|credential"
    r"|(?:auth|access|refresh|bearer|api|hub|hf|session|security)[_-]?token)"
)
_PUBLIC = r"(?!\*\*\*|[<{\[`]|\$[A-Z_{(])"
"""No secret: one that was replaced, a placeholder, or the name of a variable."""
_SCHEME = r"(?:bearer|basic|token|api-?key|key|digest|negotiate|oauth|hawk|signature|aws4-hmac-sha256)"
_FIELD = r"[\w-]+=\\?\"?[^\s,'\"\\]*\\?\"?"
"""A part of a header with several, such as `Signature=…`."""
_DIGIT_WITHIN = 256
"""Characters of a value that are searched for a digit, which a word does not have; limited to stay linear."""
_QUOTE = r"\\?[\"']"

_NAME_MARKS = (
    *("key", "Key", "KEY", "ecret", "ECRET", "assw", "ASSW", "assphrase", "ASSPHRASE", "pwd", "PWD", "Pwd"),
    *("oken", "OKEN", "redential", "REDENTIAL"),
)
NAMED: tuple[tuple[tuple[tuple[str, ...], ...], re.Pattern[str]], ...] = tuple(
    (marks, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
    for marks, pattern in (
        # "password": "…", password='…'
        (
            (_NAME_MARKS, (":", "="), ("'", '"')),
            (
                rf"{_NAME}s?[\"']?[ \t]*[:=][ \t]*b?(?P<quote>[\"']){_PUBLIC}"
                r"(?P<secret>(?:\\[^\r\n]|(?!(?P=quote))[^\r\n\\]){1,4096})"
            ),
        ),
        # the same in JSON that is a string of JSON
        (
            (_NAME_MARKS, (":", "="), ('\\"', "\\'")),
            rf"{_NAME}s?(?:\\[\"'])?[ \t]*[:=][ \t]*\\[\"']{_PUBLIC}(?P<secret>[^\"'\\\r\n]+)",
        ),
        # api_key: …, API_KEY = …; a digit tells it from a word
        (
            (_NAME_MARKS, (":", "=")),
            (
                rf"{_NAME}[ \t]*[:=][ \t]*{_PUBLIC}"
                rf"(?P<secret>(?=[^\s'\";,&\\<>]{{0,{_DIGIT_WITHIN}}}\d)[^\s'\";,&\\<>]{{6,}})"
            ),
        ),
        # a line of YAML that is nothing else
        (
            (_NAME_MARKS, (":",)),
            (
                r"^[ \t]*(?:-[ \t]+)?(?:[A-Za-z0-9]+[_-])*?(?:api[_-]?key|secret[_-]?key|access[_-]?key|passw(?:or)?d"
                rf"|passphrase|pwd)[ \t]*:[ \t]+(?!null|none|true|false){_PUBLIC}"
                r"(?P<secret>[^\s'\"#&,;\\]{6,})(?=[ \t]*$|[ \t]+#)"
            ),
        ),
        # --api-key …, --password=…
        (
            (("--",), _NAME_MARKS),
            (
                r"(?<![\w-])--(?:[A-Za-z0-9]+[_-])*?(?:api[_-]?key|(?:secret|access|private|auth)[_-]?key|secret"
                rf"|passw(?:or)?d|passphrase|pwd|token)(?:=|[ \t]+){_QUOTE}?(?!-){_PUBLIC}"
                rf"(?P<secret>(?=[^\s'\"\\]{{0,{_DIGIT_WITHIN}}}\d)[^\s'\"\\]{{4,}})"
            ),
        ),
        # Authorization: SCHEME …
        (
            (("uthorization", "UTHORIZATION"),),
            (
                rf"(?<![A-Za-z0-9])authorization(?:{_QUOTE})?[ \t]*[:=,][ \t]*b?(?:{_QUOTE})?{_SCHEME}[ \t]+(?!\*\*\*)"
                rf"(?P<secret>{_FIELD}(?:,[ \t]*{_FIELD})*|[^\s'\"\\]{{6,}})"
            ),
        ),
        (
            (("uthorization", "UTHORIZATION"),),
            (
                rf"(?<![A-Za-z0-9])authorization(?:{_QUOTE})?[ \t]*[:=,][ \t]*b?(?:{_QUOTE})?(?!{_SCHEME}\b){_PUBLIC}"
                rf"(?P<secret>(?=[^\s'\"\\]{{0,{_DIGIT_WITHIN}}}\d)[^\s'\"\\]{{6,}})"
            ),
        ),
        (
            (("ookie", "OOKIE"), ("=",)),
            (
                rf"(?<![A-Za-z0-9])cookie(?:{_QUOTE})?[ \t]*:[ \t]*b?(?:{_QUOTE})?(?!\*\*\*)"
                r"(?P<secret>[\w.-]+=[^\r\n\"'\\]+)"
            ),
        ),
    )
)
"""Substrings of which one per group must occur, and the pattern, whose group `secret` is replaced."""
