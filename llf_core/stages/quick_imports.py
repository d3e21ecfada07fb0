"""The imports of a trainer, without what a run of its kind never uses."""

from __future__ import annotations

import gc
import importlib
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.models.bitsandbytes_import import import_bitsandbytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.config import RunConfig

# Optimizers of torch and transformers themselves; of the others some are bitsandbytes' (rmsprop_bnb is).
OWN_OPTIMIZERS = {"adamw_torch", "adamw_torch_fused", "adafactor", "adagrad", "rmsprop", "sgd"}


def import_trainer(*, bitsandbytes: bool) -> None:
    """Imports torch, transformers, PEFT and all that a run needs, for the whole process and once.

    Args:
        bitsandbytes: whether this process may use it. Where it may not, it is hidden from PEFT and transformers,
            which import it (and a compiler) only since it is there.

    Raises:
        ModuleNotFoundError: a package of `llf[train]` is missing.
    """
    with _no_collection():
        if bitsandbytes:
            import_bitsandbytes()
        elif "bitsandbytes" not in sys.modules:
            sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # Python's way to make an import fail
        importlib.import_module("llf_core.stages.session")


def needs_bitsandbytes(config: RunConfig) -> bool:
    """Whether a run may need it: quantized weights, an optimizer of its own, or a model that cannot be looked into."""
    if config.model.quantization_bit is not None or config.get("optim") not in OWN_OPTIMIZERS:
        return True
    stored = _stored_config(config)
    return stored is None or "quantization_config" in stored


def _stored_config(config: RunConfig) -> dict[str, Any] | None:
    """The `config.json` of the run's model where it is on this disk; None where it is not, or is no object."""
    name = config.model.model_name_or_path
    from llf_core.config.model import EMBEDDED

    if name == EMBEDDED:
        return {}
    path: Path | str | None
    if Path(name).is_dir():
        path = Path(name) / "config.json"
    elif Path(name).is_file():
        return {}  # a GGUF file
    else:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            name, "config.json", cache_dir=config.model.cache_dir, revision=config.model.model_revision
        )
        path = found if isinstance(found, str) else None
    try:
        stored = None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the Model Loader says what is wrong with it
    return stored if isinstance(stored, dict) else None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Imports make objects that stay: looking for garbage among them takes half a second and finds none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()
