"""Texts of strangers as a person can read them: nothing that a terminal or a page obeys, and no word without end."""

from __future__ import annotations

import re

LONGEST_WORD = 400
"""Characters of one word of a message: longer ones are cut in their middle."""
LONGEST_MESSAGE = 4000
"""Characters of a message."""
_BEGIN, _END = 0.6, 0.2  # of what may be shown, before and after what is cut out
# Control characters but line breaks and tabs, those that turn or hide what stands around them, halves of surrogates.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""A text in which characters that nobody sees stand as Python writes them: `\x1b`, `\u202e`.

    Those are control characters (but line breaks and tabs), signs that turn or hide the text around them, and halves
    of surrogate pairs. A text without any is the same object.
    """
    return text if text.isprintable() else _UNSEEN.sub(_escaped, text)


def visible_json(text: str) -> str:
    r"""The same of a text of JSON, which means the same as before: each stands as `\u001b`."""
    return text if text.isprintable() else _UNSEEN.sub(_json_escaped, text)


def brief(text: str) -> str:
    """A message that a person can read at a glance: `visible`, long words and a long whole cut in their middle."""
    text = visible(text)
    if len(text) > LONGEST_WORD:
        text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda found: _cut(found[0], LONGEST_WORD), text)
    return _cut(text, LONGEST_MESSAGE)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: int(most * _BEGIN)]}…{text[-int(most * _END) :]}"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004


def _json_escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
