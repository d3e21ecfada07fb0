"""Forecasts the resources of a run before it starts, without loading its model. Imports no torch."""

from llf_core.config.weight_shapes import weight_shapes
from llf_core.estimate.devices import Device, available_memory, device_of, find_devices
from llf_core.estimate.example_lengths import ExampleLengths
from llf_core.estimate.fit_check import check_fit, forecast_disk
from llf_core.estimate.fit_result import FitCheck
from llf_core.estimate.forecaster import Forecaster
from llf_core.estimate.memory_forecast import Forecast, TrainingPass, training_memory, weight_bytes
from llf_core.estimate.model_shapes import Architecture, architecture, read_model_config
from llf_core.estimate.model_sizes import ModelSizes, model_sizes, trained_parameters

__all__ = [
    "Architecture",
    "Device",
    "ExampleLengths",
    "FitCheck",
    "Forecast",
    "Forecaster",
    "ModelSizes",
    "TrainingPass",
    "architecture",
    "available_memory",
    "check_fit",
    "device_of",
    "find_devices",
    "forecast_disk",
    "model_sizes",
    "read_model_config",
    "trained_parameters",
    "training_memory",
    "weight_bytes",
    "weight_shapes",
]
