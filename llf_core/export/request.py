"""The request of an export, as values, from a form or LLaMA-Factory's YAML, with the checks before anything loads."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.chat.target import Target, target_of_config_file
from llf_core.config.did_you_mean import did_you_mean
from llf_core.config.paths import expanded
from llf_core.config.read_config import read
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


DTYPES = ("auto", "float32", "bfloat16", "float16")
"""`auto` is the dtype in which the base model is stored."""
DEVICES = ("cpu", "auto")

COMBINATIONS = (
    "cat",
    "linear",
    "svd",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
)
"""PEFT's combinations of LoRAs. `cat` and `svd` (of full rank) give the weighted sum of their products."""

SHARD_BYTES = 5 * 10**9
"""As LLaMA-Factory's `export_size: 5`."""


@dataclass(frozen=True)
class WeightedAdapter:
    """An adapter with its weight in a combination.

    Attributes:
        adapter: folder or hub id.
        weight: factor of its change to the base's weights; negative values subtract it.
    """

    adapter: str
    weight: float = 1.0
    name: str = ""


@dataclass(frozen=True)
class ExportRequest:
    """An export.

    Attributes:
        adapters: adapters on the target's base, the target's own among them; empty for a whole model.
        density: share of the values that pruning combinations (TIES, DARE, magnitude) keep, in (0, 1].
        rank: rank of the LoRA into which another PEFT adapter is converted; None to keep its type.
        device: one of `DEVICES`: `cpu`, or `auto` for a GPU if there is one.
        keep_failed: whether to keep an export that failed its receipt, as `<name>.failed`.
    """

    target: Target
    format: str
    folder: Path
    adapters: tuple[WeightedAdapter, ...] = ()
    combination: str = "cat"
    density: float | None = None
    dtype: str = "auto"
    shard_bytes: int = SHARD_BYTES
    rank: int | None = None
    quantizations: tuple[str, ...] = ()
    device: str = "cpu"
    keep_failed: bool = False

    def json(self) -> str:
        """JSON text for a child process."""
        return json.dumps(asdict(self) | {"folder": str(self.folder)})

    @classmethod
    def read(cls, text: str) -> ExportRequest:
        """The request that `json` wrote."""
        values = json.loads(text)
        values["target"] = Target(**values["target"])
        values["folder"] = Path(values["folder"])
        values["adapters"] = tuple(WeightedAdapter(**one) for one in values["adapters"])
        values["quantizations"] = tuple(values["quantizations"])
        return cls(**values)


def plain_name(name: str) -> str:
    """A name with `-` in place of all but letters, digits and `_.@-`; `model` if nothing is left."""
    return re.sub(r"[^\w.@-]+", "-", name).strip("-.") or "model"


class ExportError(UserError, ValueError):
    """A model could not be exported, or what was written differs from it. Nothing is left at the destination."""


MIN_SHARD = 1_000_000
"""Smaller shards would make a file of nearly each tensor."""

PRUNING = ("ties", "dare", "magnitude")
"""Prefixes of combinations that need a density."""


def check_reward_model(request: ExportRequest, supported: bool) -> None:
    """Check that a format and its options are for a reward model too."""
    if not supported:
        raise ExportError(
            f"{request.target.name} is a reward model, which the format {request.format} has no place for: its head "
            "maps to a score. Expected the format merged or adapter."
        )
    if len(request.adapters) > 1:
        raise ExportError(
            f"{request.target.name} is a reward model, and {len(request.adapters)} adapters are named. Expected one: "
            "the heads of several have no meaningful sum."
        )
    if request.rank is not None:
        raise ExportError(f"`rank` is {request.rank}, and {request.target.name} is a reward model. Expected none.")


def check_device(request: ExportRequest) -> None:
    """Check that the device is one of `DEVICES`."""
    if request.device not in DEVICES:
        raise ExportError(f"`device` is {request.device!r}. Expected {' or '.join(DEVICES)}.")


def check_quantizations(request: ExportRequest) -> None:
    """Check that no quantizations are named, for the formats that write none or a single one."""
    if request.quantizations:
        raise ExportError(f"`quantizations` is for the format gguf. Expected none for {request.format}.")


def check_dtype(request: ExportRequest) -> None:
    """Check that the dtype of the written weights is one of `DTYPES`."""
    if request.dtype not in DTYPES:
        meant = did_you_mean(request.dtype, DTYPES)
        raise ExportError(f"`dtype` is {request.dtype!r}.{meant} Expected one of {', '.join(DTYPES)}.")


def check_shards(request: ExportRequest) -> None:
    """Check that the maximum size of a weight file is at least `MIN_SHARD`."""
    if request.shard_bytes < MIN_SHARD:
        raise ExportError(f"`shard_size` is {request.shard_bytes} bytes. Expected at least 1 MB, such as 5GB.")


def check_combination(request: ExportRequest) -> None:
    """Check how several adapters are combined: a known combination, with a density where it uses one."""
    if request.combination not in COMBINATIONS:
        meant = did_you_mean(request.combination, COMBINATIONS)
        raise ExportError(
            f"`combination` is {request.combination!r}.{meant} Expected one of {', '.join(COMBINATIONS)}."
        )
    if request.density is not None and not 0 < request.density <= 1:
        raise ExportError(f"`density` is {request.density}. Expected a share above 0 and at most 1.")
    if request.density is not None and not request.combination.startswith(PRUNING):
        raise ExportError(f"`density` is {request.density}, and {request.combination} keeps all values. Expected none.")
    if len(request.adapters) > 1 and request.combination.startswith(PRUNING) and request.density is None:
        raise ExportError(
            f"The combination {request.combination} drops a part of each adapter's values. Expected `density`, the "
            "share that is kept, such as 0.5."
        )


BITS = 4
INFER_DTYPES = ("float16", "bfloat16", "float32")


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
    if values.get("infer_dtype") in INFER_DTYPES:
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
