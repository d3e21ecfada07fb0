"""Forecasts the resources of a run before it starts, without loading its model. Imports no torch."""

from llf_core.estimate.activations import Pass
from llf_core.estimate.available import available_memory
from llf_core.estimate.disk_forecast import disk
from llf_core.estimate.memory_forecast import Forecast, training_memory, weight_bytes
from llf_core.estimate.model_shapes import Architecture, architecture, settings_of
from llf_core.estimate.weight_count import shapes, trained

__all__ = [
    "Architecture",
    "Forecast",
    "Pass",
    "architecture",
    "available_memory",
    "disk",
    "settings_of",
    "shapes",
    "trained",
    "training_memory",
    "weight_bytes",
]
