"""What the loss sees, to be looked at: counts, lengths, records worth a look, examples token by token, packed rows."""

from llf_core.data.inspect.inspection import Inspection

__all__ = ["Inspection"]
