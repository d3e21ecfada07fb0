"""A text stream that redacts what is written to it."""

from __future__ import annotations

import io

from llf_core.redaction.redact_text import MARK, redact

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
