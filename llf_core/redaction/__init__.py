"""Keeps secrets out of what is stored and displayed.

Secrets are found by environment variables, by known key formats, by names, and by randomness. All text that leaves the
process passes `redact`: files of a run, its log, server responses, messages.
"""

from __future__ import annotations

from llf_core.redaction.redact_text import MARK, redact, redact_nested

__all__ = ["MARK", "redact", "redact_nested"]
