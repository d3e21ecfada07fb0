"""Which rows a run finds hard, and which a step was made of."""

from llf_widgets.examples.widget import Examples

__all__ = ["Examples"]
