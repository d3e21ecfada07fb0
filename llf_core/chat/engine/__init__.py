"""The chat's generation engine: one base model, adapters by name, concurrent replies. Worker processes import it."""

from llf_core.chat.engine.engine import Engine

__all__ = ["Engine"]
