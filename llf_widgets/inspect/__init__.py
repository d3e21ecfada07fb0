"""What the loss sees of a config's data."""

from llf_widgets.inspect.widget import Inspect

__all__ = ["Inspect"]
