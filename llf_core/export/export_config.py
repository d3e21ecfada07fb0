"""Reads LLaMA-Factory's YAML of an export: model, adapters and the keys `export_*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.chat.target import Target, target_of_config_file
from llf_core.config.paths import expanded
from llf_core.config.read_config import read
from llf_core.export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BITS = 4
DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class ExportConfig:
    """An export as a config file describes it; `arguments` are those of `export`."""

    target: Target
    arguments: dict[str, Any]


def read_export_config(source: str, overrides: Sequence[str] = ()) -> ExportConfig:
    """Read a config file of an export, YAML or JSON, as LLaMA-Factory has them.

    The keys of calibration data have no effect, since the format gptq rounds to nearest.

    Raises:
        ExportError: the file, or a key `export_*`, has a value that is not valid or not supported.
    """
    requested = read(source, overrides)
    if requested.problems:
        raise ExportError(f"{source} cannot be read: {requested.problems[0].message}")
    values = requested.values
    arguments: dict[str, Any] = {}
    folder = _checked(values, "export_dir", lambda value: isinstance(value, str) and bool(value.strip()), "a folder")
    if folder is not None:
        arguments["folder"] = requested.base / expanded(folder)
    size = _checked(values, "export_size", _is_positive, "an integer of at least 1, in gigabytes")
    if size is not None:
        arguments["shard_size"] = f"{size}GB"
    device = _checked(
        values, "export_device", lambda value: value in ("cpu", "auto"), "cpu or auto"
    )  # a tuple: YAML may give a list
    if device is not None:
        arguments["device"] = device
    if values.get("export_legacy_format"):
        raise ExportError(
            "`export_legacy_format` is true, which writes weights as pickle. Expected false: weights are written as "
            "safetensors only, which cannot run code while they load."
        )
    if values.get("infer_dtype") in DTYPES:
        arguments["dtype"] = values["infer_dtype"]
    arguments |= _quantization(values)
    hub = _checked(values, "export_hub_model_id", lambda value: isinstance(value, str), "a hub id such as owner/name")
    if hub is not None:
        arguments["hub_model_id"] = hub
    return ExportConfig(target_of_config_file(expanded(source).absolute(), overrides), arguments)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _checked(values: dict[str, Any], key: str, fits: Callable[[Any], bool], expected: str) -> Any:
    value = values.get(key)
    if value is not None and not fits(value):
        raise ExportError(f"`{key}` is {value!r}. Expected {expected}.")
    return value


def _quantization(values: dict[str, Any]) -> dict[str, Any]:
    bits = values.get("export_quantization_bit")
    if bits is None:
        return {}
    if bits != BITS:
        raise ExportError(f"`export_quantization_bit` is {bits!r}. Expected {BITS}, the bits of GPTQ here, or none.")
    return {"format": "gptq"}
