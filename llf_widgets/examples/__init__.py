"""Training examples with unusual losses, and the examples of a step."""

from llf_widgets.examples.widget import Examples

__all__ = ["Examples"]
