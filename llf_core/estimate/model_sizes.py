"""Sizes of the model that a config names and what it trains, from the headers of its files; kernels it would use."""

from __future__ import annotations

import functools
import math
import os
import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config import Fix, Problem
from llf_core.config.declarations.methods.freeze import trained_weights
from llf_core.config.model import EMBEDDED
from llf_core.config.name_checks.architecture_properties import indexed_limit
from llf_core.config.name_checks.model_folder import config_of, folder_of
from llf_core.config.new_tokens import adds_tokens, requested_tokens
from llf_core.config.registry import method_of
from llf_core.config.stored_quantization import is_quantized, stays_packed
from llf_core.config.weight_shapes import (
    LAYER,
    MATRIX,
    MOST_PARAMETERS,
    ModelSizeError,
    check_sizes,
    count,
    loaded_shapes,
    read_bytes,
    read_dtypes,
    read_shapes,
    shapes_from_config,
    weight_files,
    weight_shapes,
)
from llf_core.estimate.devices import device_of, find_devices
from llf_core.estimate.model_shapes import architecture, encoder, is_multimodal, language_weights, read_model_config
from llf_core.model_catalog import find_model

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.config.weight_shapes import Shapes
    from llf_core.estimate.devices import Device
    from llf_core.estimate.model_shapes import Architecture


NAMED_SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:(\d{1,3})x)?(\d{1,4}(?:\.\d{1,3})?)([bBmM])(?![A-Za-z0-9])")
"""Number of parameters in a model's name: `7B`, `0.5b`, `135M`, `8x7B`."""
LEAST_PARAMETERS = 1e6
UNITS = {"b": 1e9, "m": 1e6}

TYPICAL = (
    (0.135e9, 576, 30, 49_152, True),
    (0.5e9, 896, 24, 151_936, True),
    (1.2e9, 2048, 16, 128_256, True),
    (3e9, 3072, 28, 128_256, True),
    (7.5e9, 4096, 32, 128_256, False),
    (14e9, 5120, 40, 151_936, False),
    (32e9, 5120, 64, 151_936, False),
    (70e9, 8192, 80, 128_256, False),
    (405e9, 16_384, 126, 128_256, False),
)
"""Parameters, hidden size, layers, vocabulary and whether the head is tied, of SmolLM2, Llama 3 and Qwen2.5."""
HEAD_SIZE, GROUPS = 128, 4


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a model.

    Attributes:
        weights: shape of each weight by name.
        float32: whether weights are stored in float32, in which trained ones then are loaded.
        packed_bytes: bytes of the weights if they are quantized in the files and stay so in memory.
        language: shapes of the weights of the language model alone; None for a model of text.
        encoder: sizes of the encoder of images, if known.
        unpadded_above: tokens above which examples are computed without padding, see `indexed_limit`.
    """

    weights: Shapes
    model: Architecture
    basis: str
    exact: bool = True
    float32: bool = False
    packed_bytes: int | None = None
    language: Shapes | None = None
    encoder: Architecture | None = None
    unpadded_above: int | None = None

    @functools.cached_property
    def parameters(self) -> int:
        """Number of parameters of the model."""
        return count(self.weights)


def model_sizes(name: str, cache_dir: str | None = None) -> ModelSizes | None:
    """Find the sizes of a model by the headers of its files, its `config.json`, the catalog of models, or its name.

    Nothing is requested from a hub. None if nothing tells them.

    Args:
        name: `model_name_or_path`.
        cache_dir: `cache_dir` of a config; None for the client's own folder.
    """
    if name == EMBEDDED:
        return _sizes(weight_shapes(name) or {}, read_model_config(name), "The embedded model's published sizes.")
    folder = folder_of(name, cache_dir)
    if folder is not None:
        found = _of_folder(folder, _state(folder))
        if found is not None:
            return found
    listed = find_model(name)
    known = listed.parameters * 1e9 if listed is not None and listed.parameters else named_parameters(name)
    return _typical(known)


def named_parameters(name: str) -> float | None:
    """Number of parameters in a model's name, such as 7e9 of `Llama-2-7b-hf`; None without a plausible one.

    Of `8x7B`, all experts are counted; they share the rest, which is about a sixth, as in Mixtral (47 billion, arXiv
    2401.04088).
    """
    found = NAMED_SIZE.search(name.rstrip("/").rpartition("/")[2].replace("_", "-"))
    if found is None:
        return None
    experts, number, unit = found.groups()
    parameters = float(number) * UNITS[unit.lower()]
    total = parameters * (int(experts) * 5 / 6 if experts else 1)
    return total if LEAST_PARAMETERS <= total <= MOST_PARAMETERS else None


@functools.lru_cache(maxsize=16)
def _of_folder(folder: Path, _changed: tuple[tuple[str, int, int], ...]) -> ModelSizes | None:
    """Cached until a file changes."""
    settings = config_of(folder)
    check_sizes(settings)
    if is_quantized(settings) and (weights := shapes_from_config(settings) or {}):
        packed = (read_bytes(folder) or None) if stays_packed(settings) else None
        found = _sizes(weights, settings, "The model's config.json, and the sizes of its quantized files.")
        return None if found is None else replace(found, packed_bytes=packed)
    if weights := loaded_shapes(read_shapes(folder)):
        found = _sizes(weights, settings, "The headers of the model's weight files.")
        float32 = "F32" in read_dtypes(folder)
    else:
        weights = shapes_from_config(settings) or {}
        found = _sizes(weights, settings, "The model's config.json.")
        float32 = "float32" in {settings.get("dtype"), settings.get("torch_dtype")}
    return None if found is None else replace(found, float32=float32)


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files with the sizes."""
    files = [*weight_files(folder), folder / "config.json"]
    stats = [(file.name, file.stat()) for file in files if os.path.exists(file)]  # noqa: PTH110 - no error for a path
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _sizes(weights: Shapes, settings: dict[str, object], basis: str, *, exact: bool = True) -> ModelSizes | None:
    """Sizes by the weights; None if they show no decoder."""
    total = count(weights)
    if total > MOST_PARAMETERS:
        raise ModelSizeError(
            f"The model's files name 10^{math.floor(math.log10(total))} parameters. Expected at most 10^15.",
            "Download the model's config.json and weights again.",
        )
    try:
        language = language_weights(weights, settings)
        model = architecture(language, settings)
    except (ValueError, TypeError, OverflowError):
        raise ModelSizeError(
            "The model's config.json has a number of heads or experts that is no number.",
            "Download the model's config.json again.",
        ) from None
    if model is None:
        return None
    if not is_multimodal(settings):
        return ModelSizes(weights, model, basis, exact, unpadded_above=indexed_limit(settings))
    return ModelSizes(weights, model, basis, exact, language=language, encoder=encoder(weights))


@functools.lru_cache(maxsize=16)
def _typical(parameters: float | None) -> ModelSizes | None:
    """A decoder of the proportions of published models of this size; None if that is unknown.

    Hidden size, layers and vocabulary are those of the nearest one in `TYPICAL`; the inner size of the MLP gives the
    number of parameters.
    """
    if parameters is None:
        return None
    _, hidden, layers, vocabulary, tied = min(TYPICAL, key=lambda row: abs(math.log(row[0] / parameters)))
    keys = max(HEAD_SIZE, hidden // GROUPS)
    outer = vocabulary * hidden * (1 if tied else 2)
    inner = (parameters - outer) / layers / (3 * hidden) - (2 * hidden + 2 * keys) / 3
    settings = {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // HEAD_SIZE),
        "num_key_value_heads": max(1, keys // HEAD_SIZE),
        "head_dim": HEAD_SIZE,
        "intermediate_size": max(hidden, round(inner)),
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    weights = shapes_from_config(settings)
    basis = (
        f"Only the name and size of the model are known here: a typical decoder of {parameters / 1e9:.3g} billion "
        "parameters is assumed."
    )
    return _sizes(weights or {}, settings, basis, exact=False)


def trained_parameters(config: RunConfig, weights: Shapes) -> int | None:
    """Number of parameters that a config trains; None for a method that cannot say without the model."""
    parameters = method_of(config).trained_parameters
    found = None if parameters is None else parameters(config, weights)
    return None if found is None else found + new_token_parameters(config, weights)


def new_token_parameters(config: RunConfig, weights: Shapes) -> int:
    """Number of parameters that are trained for new tokens, in the embedding and in an untied output head.

    Beside an adapter and in a whole model these are the rows of the tokens. `freeze` trains both matrices whole, of
    which `trained_weights` may have counted the old rows. 0 if the tokens cannot be read.
    """
    try:
        tokens = len(requested_tokens(config)) if adds_tokens(config) else 0
    except (ValueError, OSError):  # refused before a run starts
        return 0
    if not tokens:
        return 0
    outer = {name: shape for name, shape in weights.items() if not LAYER.search(name) and len(shape) == MATRIX}
    largest = max(outer.values(), default=None)
    if largest is None:
        return 0
    rows, hidden = largest
    matrices = [name for name, shape in outer.items() if shape == largest]
    frozen = {*matrices} - trained_weights(config, weights).keys() if method_of(config).selects_blocks else set()
    return hidden * (tokens * len(matrices) + rows * len(frozen))


FILE = Path(__file__).with_name("fast_kernels.toml")
KEY = "model_name_or_path"

FLASH = {
    "fa2": ("flash_attn", "Run: pip install flash-attn --no-build-isolation"),
    "fa3": ("flash_attn_interface", "Build it from the folder hopper of github.com/Dao-AILab/flash-attention"),
}
"""Module that each value of `flash_attn` needs, and its installation."""


@dataclass(frozen=True)
class Kernels:
    """A package with fast kernels; `types` are the values of `model_type` that use it."""

    module: str
    package: str
    layers: str
    command: str
    types: frozenset[str]


@cache
def fast_kernels() -> tuple[Kernels, ...]:
    """All packages of the table."""
    with FILE.open("rb") as file:
        return tuple(Kernels(**(one | {"types": frozenset(one["types"])})) for one in tomllib.load(file)["kernels"])


def kernel_problems(config: RunConfig, devices: tuple[Device, ...] | None = None) -> tuple[Problem, ...]:
    """Find the fast kernels for NVIDIA GPUs that a run would use and that are not installed.

    Without them transformers computes the same in PyTorch, several times slower: a warning beside the model, or an
    error beside `flash_attn` if its package is missing. Nothing for an unknown model.
    """
    if device_of(config, find_devices() if devices is None else devices).kind != "cuda":
        return ()
    kinds = _types(config)
    missing = [one for one in fast_kernels() if one.types & kinds and find_spec(one.module) is None]
    return (*_slow(config, missing), *_flash_attention(config))


def _types(config: RunConfig) -> set[str]:
    """`model_type` of the model and of its language model."""
    name, cache_dir = config.model.model_name_or_path, config.model.cache_dir
    folder = folder_of(name, cache_dir)
    if folder is None:
        known = find_model(name)
        return set() if known is None else {known.type}
    settings = config_of(folder)
    parts = (settings, settings.get("text_config"))
    return {str(part.get("model_type")) for part in parts if isinstance(part, dict)}


def _slow(config: RunConfig, missing: list[Kernels]) -> tuple[Problem, ...]:
    if not missing:
        return ()
    packages = " and ".join(one.package for one in missing)
    layers = " and ".join(one.layers for one in missing)
    message = (
        f"{packages} {'is' if len(missing) == 1 else 'are'} not installed: this model's layers of {layers} run in "
        "plain PyTorch. The results are the same; training takes several times as long and more memory. Run: "
        f"{' && '.join(one.command for one in missing)}."
    )
    return (Problem("violation", KEY, config.get(KEY), message, (), "warning", keys=(KEY,)),)


def _flash_attention(config: RunConfig) -> tuple[Problem, ...]:
    chosen = config.model.flash_attn
    module, command = FLASH.get(chosen, ("", ""))
    if not module or find_spec(module) is not None or find_spec("kernels") is not None:  # it downloads them
        return ()
    message = (
        f"`flash_attn` {chosen} needs FlashAttention, which is not installed. {command}; or set `auto`: LLF's own "
        "attention needs no package."
    )
    fix = Fix("Set to auto", {"flash_attn": "auto"})
    return (Problem("violation", "flash_attn", chosen, message, (fix,), "error", keys=("flash_attn",)),)
