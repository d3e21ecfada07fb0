"""Model Loader: from a name to a model on this machine's device. Imports torch only inside its functions."""

from llf_core.models.device import DevicePlan, plan_device
from llf_core.models.errors import ModelError
from llf_core.models.generate import end_at, generate
from llf_core.models.load import load_model
from llf_core.models.output import save_output
from llf_core.models.parameters import count_parameters
from llf_core.models.processor import load_processor
from llf_core.models.resolve import resolve_model
from llf_core.models.source import ModelSource
from llf_core.models.tokenizer import load_tokenizer
from llf_core.models.tuned import load_base_and_tuned

__all__ = [
    "DevicePlan",
    "ModelError",
    "ModelSource",
    "count_parameters",
    "end_at",
    "generate",
    "load_base_and_tuned",
    "load_model",
    "load_processor",
    "load_tokenizer",
    "plan_device",
    "resolve_model",
    "save_output",
]
