"""Inspection of prepared data: counts, lengths, notable records, examples token by token, packed rows."""

from llf_core.data.inspect.inspection import Inspection

__all__ = ["Inspection"]
