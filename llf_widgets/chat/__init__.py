"""Chat with models, side by side."""

from llf_widgets.chat.widget import Chat

__all__ = ["Chat"]
