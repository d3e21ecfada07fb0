"""Speeds up the imports of a process that loads a model."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.quantizers import QUANTIZERS, SECOND_MODELS, stored_quantizer
from llf_core.config.registry import optimizer_packages, quantizer_of
from llf_core.models.deferred_modules import can_defer, defer_modules
from llf_core.models.torchao_logs import silence_torchao

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.config import RunConfig

# In torch's order: the first one finds the libraries of CUDA.
LIBRARIES = ("libtorch_global_deps.so", "libtorch.so")


def prepare_imports() -> None:
    """Start what can be done before torch and transformers are imported. Call it first in the process."""
    from llf_core.models.model_files import cache_import_structure

    if "torch" not in sys.modules and sys.platform == "linux":
        threading.Thread(target=_load_torch, daemon=True).start()
    cache_import_structure()


def _load_torch() -> None:
    """Load torch's libraries without holding the GIL: 0.15 s, or seconds with CUDA."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return
    try:
        for name in LIBRARIES:
            ctypes.CDLL(str(Path(spec.origin).parent / "lib" / name), ctypes.RTLD_GLOBAL)
    except OSError:
        return  # torch itself finds them, or reports what is missing


@contextmanager
def deferred_imports(config: RunConfig | None) -> Iterator[None]:
    """Context manager around the imports of torch, transformers, PEFT and their dependents, in a run's own process.

    Modules that the run does not use, such as quantizers, are hidden or deferred. The garbage collector pauses, and
    never looks at what exists afterwards.

    Args:
        config: None if it cannot be read, so that nothing will be trained.
    """
    collecting = gc.isenabled()
    gc.disable()  # garbage collection during the imports takes half a second and finds nothing
    try:
        needed = set() if config is None else needed_quantizers(config)
        if "bitsandbytes" in needed:
            from llf_core.models.bitsandbytes_import import import_bitsandbytes

            import_bitsandbytes()
        if "torchao" in needed:
            silence_torchao()
        for module in quantizer_modules() - needed:
            if module not in sys.modules:
                sys.modules[module] = None  # type: ignore[assignment]  # Python's way to make an import fail
        if config is not None and can_defer(config):
            defer_modules()
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def quantizer_modules() -> set[str]:
    """Names of the packages that only quantizers import, which does not include `kernels`."""
    return {module for one in QUANTIZERS.values() for module in one.modules.values()} - {"kernels"}


def needed_quantizers(config: RunConfig) -> set[str]:
    """Packages of quantizers that a run may need: for quantized weights, some optimizers, or an unknown config."""
    needed = quantizer_modules().intersection(optimizer_packages(config))
    if config.model.quantization_bit is not None:
        needed.update(quantizer_of(config).modules.values())
    if any(config.get(key) for key in SECOND_MODELS):
        needed.update(QUANTIZERS["bnb"].modules.values())
    stored = _stored_config(config)
    if stored is None:
        return quantizer_modules()
    if settings := stored.get("quantization_config"):
        found = stored_quantizer(settings.get("quant_method") if isinstance(settings, dict) else None)
        needed.update(quantizer_modules() if found is None else found.modules.values())
    return needed


def _stored_config(config: RunConfig) -> dict[str, object] | None:
    """The model's `config.json`; None if it is not on this disk or no JSON object."""
    name = config.model.model_name_or_path
    from llf_core.config.model import EMBEDDED

    if name == EMBEDDED:
        return {}
    try:
        path = _config_file(config)
        stored = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except Exception:  # noqa: BLE001 - a name that is none, a file that is none: the Model Loader says what is wrong
        return None
    return stored if isinstance(stored, dict) else None


def _config_file(config: RunConfig) -> Path | None:
    """Path of the model's `config.json` on this disk; None for a GGUF file."""
    name = config.model.model_name_or_path
    if Path(name).is_dir():
        return Path(name) / "config.json"
    if Path(name).is_file():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        name, "config.json", cache_dir=config.model.cache_dir, revision=config.model.model_revision
    )
    if not isinstance(found, str):
        raise FileNotFoundError(name)
    return Path(found)
