"""Speeds up the imports of a process that loads a model.

Caches which names the model files of transformers export.

Defers imports of torch modules that a process without a compiler never uses.

transformers and torch's optimizers import torch's compiler, and with it the distributed tensors, for a decorator or an
`isinstance` check: a quarter of a trainer's import time. Stand-in modules take their place. They provide the few names
that are accessed, with their behaviour where nothing is compiled or distributed. The first access to any other name
imports the real module, which replaces the stand-in.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import logging
import os
import sys
import threading
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from llf_core.config.quantizers import QUANTIZERS, SECOND_MODELS, stored_quantizer
from llf_core.config.registry import optimizer_packages, quantizer_of
from llf_core.runs.files import replace_file
from llf_core.runs.folder import home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llf_core.config import RunConfig


# In torch's order: the first one finds the libraries of CUDA.
LIBRARIES = ("libtorch_global_deps.so", "libtorch.so")


def prepare_imports() -> None:
    """Start what can be done before torch and transformers are imported. Call it first in the process."""
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


NOISE = {"torchao": "Failed to load", "torch.utils._pytree": "%s is an Enum subclass"}
"""Start of messages at the import of torchao 0.18, by logger."""


def silence_torchao() -> None:
    """Drop the messages of `NOISE`, which a user can do nothing about. Call it before torchao is imported."""
    for name, start in NOISE.items():
        logging.getLogger(name).addFilter(_Dropped(start))


class _Dropped(logging.Filter):
    def __init__(self, start: str) -> None:
        super().__init__()
        self._start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self._start)


NO_KERNEL = "Failed to load CPU gemm_4bit_forward"


def import_bitsandbytes() -> None:
    """Import bitsandbytes, where it is installed, as if the package `kernels` were not.

    With `kernels`, bitsandbytes 0.50 downloads compiled code on a CPU with AVX512-BF16, without the user's consent.
    Call this before PEFT and transformers import it.
    """
    if "bitsandbytes" in sys.modules or find_spec("bitsandbytes") is None:
        return
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.addFilter(_is_relevant)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "kernels"}
    sys.modules["kernels"] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        sys.modules.update(hidden)


def _is_relevant(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(NO_KERNEL)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Context manager that disables transformers' progress bars, which write a line per weight to a log file."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


MODULE = "transformers.utils.import_utils"
READER = "create_import_structure_from_path"
INSTALLED = {"site-packages", "dist-packages"}


def cache_import_structure() -> None:
    """Make a later import of transformers read the exports of its model files from a cache in `LLF_HOME/cache`.

    transformers parses all of these files twice on every import. The cache is made once per installed version; an
    editable installation is parsed every time.
    """
    if "transformers" not in sys.modules and not any(isinstance(one, _ModelFileFinder) for one in sys.meta_path):
        sys.meta_path.insert(0, _ModelFileFinder())


class _ModelFileFinder:
    """Import hook that patches the module which parses the files."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002 - the signature of a finder
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _patch(module)

            loader.exec_module = exec_module
        return spec


def _patch(module: ModuleType) -> None:
    read: Callable[[object], dict[object, object]] | None = getattr(module, READER, None)
    package = Path(str(module.__file__)).parent.parent
    if read is None or not INSTALLED & set(package.parts):
        return
    models, known = package / "models", None

    def read_cached(path: object) -> dict[Any, Any]:
        nonlocal known
        if str(path) not in {str(models), str(models / "__init__.py")}:
            return read(path)
        if known is None:
            known = _stored(package) or _store(package, read(models))
        return decode_structure(known)

    setattr(module, READER, read_cached)


def _installed_version(package: Path) -> list[str | int]:
    """Cache key, which changes when another version is installed."""
    init, models = (package / "__init__.py").stat(), (package / "models").stat()
    return [str(package), init.st_size, init.st_mtime_ns, models.st_mtime_ns]


def _file() -> Path:
    return home() / "cache" / "transformers.json"


def _stored(package: Path) -> dict[str, object] | None:
    try:
        stored = json.loads(_file().read_bytes())
        if stored["of"] != _installed_version(package):
            return None
        decode_structure(stored["exports"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # an unreadable cache is computed again
    exports: dict[str, object] = stored["exports"]
    return exports


def _store(package: Path, structure: dict[object, object]) -> dict[str, object]:
    exports = encode_structure(structure)
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        replace_file(_file(), json.dumps({"of": _installed_version(package), "exports": exports}).encode())
    except OSError:
        pass  # a full or read-only disk: the files are parsed again the next time
    return exports


def encode_structure(structure: dict[Any, Any]) -> dict[str, Any]:
    """Convert an import structure to a JSON object for `decode_structure`.

    Args:
        structure: maps each set of required libraries to modules and their exports, and each subfolder to its own
            structure: `{frozenset({"torch"}): {"modeling_llama": {"LlamaModel"}}, "llama": {…}}`.
    """
    needs = [
        [sorted(key), {name: sorted(names) for name, names in modules.items()}]
        for key, modules in structure.items()
        if isinstance(key, frozenset)
    ]
    return {
        "needs": needs,
        "folders": {key: encode_structure(one) for key, one in structure.items() if isinstance(key, str)},
    }


def decode_structure(exports: dict[str, Any]) -> dict[Any, Any]:
    """Convert JSON back to an import structure, a new one each time, since transformers modifies it."""
    needs = {frozenset(key): {name: set(names) for name, names in modules.items()} for key, modules in exports["needs"]}
    return {**needs, **{name: decode_structure(one) for name, one in exports["folders"].items()}}


RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""Variables of a process of a distributed run."""
_standing_in: dict[str, ModuleType] = {}
_lock = threading.Lock()


def can_defer(config: RunConfig) -> bool:
    """Whether a run compiles nothing, runs no code of a model and is a single process."""
    compiles = any(config.get(f"torch_compile{name}") for name in ("", "_backend", "_mode"))
    return not (compiles or config.model.trust_remote_code or any(name in os.environ for name in RANK_VARIABLES))


def defer_modules() -> None:
    """Install the stand-ins for modules that are not imported yet. Has no effect once transformers is imported.

    From then on `torch.distributed.is_available()` is false.
    """
    import torch

    if _standing_in or "transformers" in sys.modules:
        return
    for name, names in STAND_INS.items():
        _stand_in(name, names)
    sys.meta_path.insert(0, _StandInFinder())
    # As in builds of torch without it, so that transformers and accelerate do not import it.
    torch.distributed.is_available = _never


def _stand_in(name: str, names: dict[str, object]) -> None:
    spec = None if name in sys.modules else find_spec(name)
    if spec is None:
        return
    module = _Deferred(name)
    module.__spec__, module.__file__ = spec, spec.origin
    if spec.submodule_search_locations is not None:
        module.__path__ = spec.submodule_search_locations
    vars(module).update(names)
    _standing_in[name] = sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(importlib.import_module(parent), child, module)


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # libraries look these up in all modules
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_real(self.__name__), name)


def import_real(name: str) -> ModuleType:
    """Import the real module, and remove its stand-in with those of its parents and submodules."""
    with _lock:
        top = name.split(".")
        first = next(".".join(top[:n]) for n in range(1, len(top) + 1) if ".".join(top[:n]) in {*_standing_in, name})
        for one in [one for one in _standing_in if f"{one}.".startswith(f"{first}.")]:
            _remove_stand_in(one)
    return importlib.import_module(name)


def _remove_stand_in(name: str) -> None:
    module = _standing_in[name]
    if sys.modules.get(name) is module:
        del sys.modules[name]
    parent, _, child = name.rpartition(".")
    attributes = vars(sys.modules[parent]) if parent in sys.modules else {}
    if attributes.get(child) is module:
        del attributes[child]


class _StandInFinder:
    """Import hook that replaces a stand-in by the real module before one of its submodules is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002 - the signature of a finder
        parent = name.rpartition(".")[0]
        if parent not in _standing_in or sys.modules.get(parent) is not _standing_in[parent]:
            return None
        import_real(parent)
        module = sys.modules.get(name)  # the parent may have imported it
        return None if module is None else ModuleSpec(name, _LoadedModuleLoader(module))  # type: ignore[arg-type]  # what a loader needs


class _LoadedModuleLoader:
    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, _: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _DeferredClass(type):
    """Metaclass of a stand-in class: it has no instances while its module is not imported."""

    def _real(cls) -> Any:
        return getattr(import_real(cls.__module__), cls.__name__)

    def __instancecheck__(cls, one: object) -> bool:
        return _is_imported(cls.__module__) and isinstance(one, cls._real())

    def __subclasscheck__(cls, one: type) -> bool:
        return _is_imported(cls.__module__) and issubclass(one, cls._real())

    def __call__(cls, *args: object, **kwargs: object) -> object:
        return cls._real()(*args, **kwargs)

    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._real(), name)


def _is_imported(module: str) -> bool:
    return sys.modules.get(module) not in (None, _standing_in.get(module))


def _deferred_class(module: str, name: str) -> type:
    return _DeferredClass(name, (), {"__module__": module})


def _plain_decorator(function: object = None, *_: object, **__: object) -> object:
    return _plain_decorator if function is None else function


def _no_op(*_: object, **__: object) -> None: ...


def _never() -> bool:
    return False


def _plain_index() -> object:
    return import_real("torch._dynamo._trace_wrapped_higher_order_op").TransformGetItemToIndex()


def _linear_sum_assignment(*args: object, **kwargs: object) -> object:
    """SciPy's function, which transformers imports for the losses of object detectors."""
    return import_real("scipy.optimize").linear_sum_assignment(*args, **kwargs)


STAND_INS: dict[str, dict[str, object]] = {
    "scipy": {},
    "scipy.optimize": {"linear_sum_assignment": _linear_sum_assignment},
    "torch._dynamo": {
        "allow_in_graph": _plain_decorator,
        "assume_constant_result": _plain_decorator,
        "disable": _plain_decorator,
        "graph_break": _no_op,
    },
    "torch._dynamo._trace_wrapped_higher_order_op": {"TransformGetItemToIndex": _plain_index},
    "torch._dynamo.eval_frame": {"OptimizedModule": _deferred_class("torch._dynamo.eval_frame", "OptimizedModule")},
    "torch.distributed.tensor": {"DTensor": _deferred_class("torch.distributed.tensor", "DTensor")},
}
