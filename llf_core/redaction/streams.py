"""stdout and stderr of a process whose log is kept: what is printed passes `redact`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from llf_core.redaction.text import MARK, redact

if TYPE_CHECKING:
    from collections.abc import Iterable

BEGIN, END, KEY = "-----BEGIN ", "-----END ", "PRIVATE KEY"


class RedactedStream:
    """A text stream that takes secrets out of what it is given; all else is the stream's own.

    Args:
        stream: where the rest goes.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._in_key = False

    def write(self, text: str) -> int:
        """Writes a text; a private key that comes line by line is left out as a whole."""
        self._stream.write(self._outside_keys(redact(text)) if self._in_key or BEGIN in text else redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each of them."""
        for line in lines:
            self.write(line)

    def _outside_keys(self, text: str) -> str:
        kept = []
        for line in text.splitlines(keepends=True):
            if self._in_key:
                self._in_key = END not in line
                continue
            begins = BEGIN in line and KEY in line
            self._in_key = begins and END not in line
            kept.append(f"{MARK}\n" if begins else line)
        return "".join(kept)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


def install() -> None:
    """Puts `RedactedStream` before stdout and stderr of this process; traces of errors pass it too."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, RedactedStream):
            setattr(sys, name, RedactedStream(stream))
