"""Keeps secrets out of what is stored and displayed: files of a run, its log, server responses, messages."""

from __future__ import annotations

from llf_core.redaction.redact_text import MARK, redact, redact_nested

__all__ = ["MARK", "redact", "redact_nested"]
