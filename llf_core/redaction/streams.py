"""A text stream of a process whose output is kept."""

from __future__ import annotations

import io

from llf_core.redaction.redact_text import MARK, redact

BEGIN, END, KEY = "-----BEGIN ", "-----END ", "PRIVATE KEY"


class RedactedStream(io.TextIOWrapper):
    """Takes secrets out of what it is given, a private key that comes line by line too."""

    _in_key = False

    def write(self, text: str) -> int:
        """Writes a text without its secrets; returns its length."""
        super().write(redact(self._outside_keys(text) if self._in_key or BEGIN in text else text))
        return len(text)

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
