"""Pre-training: the negative log-likelihood of every token of plain texts."""

from __future__ import annotations

from llf_core.stages.sft import SFT


class PT(SFT):
    """Trains on all of plain texts; the formula is that of answers, of which every token is one."""
