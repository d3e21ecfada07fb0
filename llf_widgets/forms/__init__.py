"""The form: `Studio` and what it is made of."""

from llf_widgets.forms.studio import Studio

__all__ = ["Studio"]
