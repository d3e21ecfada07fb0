"""The generation engine of the chat: one base model, adapters by name, and replies to many requests at once.

These modules import torch; a worker process imports them.
"""

from llf_core.chat.engine.engine import Engine

__all__ = ["Engine"]
