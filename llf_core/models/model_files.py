"""Caches which names the model files of transformers export."""

from __future__ import annotations

import json
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs.files import replace_file
from llf_core.runs.folder import home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

MODULE = "transformers.utils.import_utils"
READER = "create_import_structure_from_path"
INSTALLED = {"site-packages", "dist-packages"}


def cache_import_structure() -> None:
    """Make a later import of transformers read the exports of its model files from a cache in `LLF_HOME/cache`.

    transformers parses all of these files twice on every import. The cache is made once per installed version; an
    editable installation is parsed every time.
    """
    if "transformers" not in sys.modules and not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
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
