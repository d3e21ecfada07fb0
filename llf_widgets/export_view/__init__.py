"""Export of a model from a cell, with progress and the receipt."""

from llf_widgets.export_view.start import export
from llf_widgets.export_view.widget import ExportView

__all__ = ["ExportView", "export"]
