"""Arguments that the servers of vLLM and SGLang share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llf_core.models.errors import ModelError
from llf_core.models.model_source import resolve_trust_remote_code
from llf_core.models.resolve import resolve_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import RunConfig


def base_model(config: RunConfig, server: str, *, trust: bool) -> tuple[str, list[str]]:
    """Folder of the base model, and the argument that lets a server run its code, if the user has allowed it.

    Raises:
        ModelError: the model is missing, adapters are to be merged into it, or LLF would quantize it.
    """
    model = config.model
    if model.adapter_name_or_path:
        raise ModelError(
            f"{server} cannot merge {model.adapter_name_or_path[0]} into the base model. Export the merged model "
            "first, or remove infer_backend to use LLF's engine."
        )
    if model.quantization_bit is not None:
        raise ModelError(
            f"quantization_bit is {model.quantization_bit}, and {server} does not quantize as LLF does. Remove "
            "quantization_bit, name a quantized model, or remove infer_backend to use LLF's engine."
        )
    source = resolve_model(model.model_name_or_path, config)
    code = ["--trust-remote-code"] if resolve_trust_remote_code(source, config, trusted=trust) else []
    return str(source.path), code


def further_arguments(given: Mapping[str, object] | None) -> list[str]:
    """Arguments of a command from their names and values: `true` for one without a value, `false` and null for none."""
    found: list[str] = []
    for name, value in (given or {}).items():
        if value is None or value is False:
            continue
        found.append(f"--{name.replace('_', '-')}")
        if value is not True:
            found.append(value if isinstance(value, str) else json.dumps(value))
    return found
