"""Defers imports of torch modules that a process without a compiler never uses.

transformers and torch's optimizers import torch's compiler, and with it the distributed tensors, for a decorator or an
`isinstance` check: a quarter of a trainer's import time. Stand-in modules take their place. They provide the few names
that are accessed, with their behaviour where nothing is compiled or distributed. The first access to any other name
imports the real module, which replaces the stand-in.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config import RunConfig

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
    sys.meta_path.insert(0, _Finder())
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


class _Finder:
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
