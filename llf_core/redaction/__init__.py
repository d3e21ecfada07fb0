"""Secrets stay out of what is kept and shown: found by the environment, by their shape, by names, by looking random.

Every text that leaves passes `redact`: files of a run, its log, answers of the server, messages.
"""

from __future__ import annotations

from llf_core.redaction.redact_text import MARK, redact, redacted

__all__ = ["MARK", "redact", "redacted"]
