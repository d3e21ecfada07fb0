"""Model Loader: from a model name to a model on this machine's device. Imports torch only inside its functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from llf_core.models.checksums import count_parameters
    from llf_core.models.device import DevicePlan, plan_device
    from llf_core.models.errors import ModelError
    from llf_core.models.load import load_model
    from llf_core.models.model_source import ModelSource
    from llf_core.models.resolve import resolve_model
    from llf_core.models.save_result import save_output
    from llf_core.models.tokenizer import load_processor, load_tokenizer

# Loaded on first use: forms and launchers need only a few modules of this package.
_LAZY = {
    "DevicePlan": ".device",
    "ModelError": ".errors",
    "ModelSource": ".model_source",
    "count_parameters": ".checksums",
    "load_model": ".load",
    "load_processor": ".tokenizer",
    "load_tokenizer": ".tokenizer",
    "plan_device": ".device",
    "resolve_model": ".resolve",
    "save_output": ".save_result",
}

__all__ = [
    "DevicePlan",
    "ModelError",
    "ModelSource",
    "count_parameters",
    "load_model",
    "load_processor",
    "load_tokenizer",
    "plan_device",
    "resolve_model",
    "save_output",
]

__getattr__ = lazy_exports(__name__, _LAZY)
