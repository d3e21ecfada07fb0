"""Where a model comes from, and whether its code may run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llf_core.runs import home
from llf_core.runs.foreign_code import runs_code

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config import RunConfig

Kind = Literal["embedded", "folder", "gguf", "hub"]


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine.

    Attributes:
        name: as in the config: the name of the embedded model, a path or a hub id.
        path: folder with config, weights and tokenizer; for `gguf` the file itself.
        revision: commit of a hub's model.
        sha256: verified checksum of the file that the model was converted from.
        license: as its author names it, e.g. `apache-2.0`.
        portable_name: name by which others can load the base of an adapter: a hub id or a path outside `LLF_HOME`. If
            None, the result is saved as a whole model.
    """

    name: str
    path: Path
    kind: Kind
    revision: str | None = None
    sha256: str | None = None
    license: str | None = None
    portable_name: str | None = None

    @property
    def folder(self) -> Path:
        """Folder to load from, for `gguf` the file's."""
        return self.path.parent if self.kind == "gguf" else self.path

    @property
    def load_arguments(self) -> dict[str, Any]:
        """Further arguments of `from_pretrained` of a tokenizer or a config."""
        return {"gguf_file": self.path.name} if self.kind == "gguf" else {}


def resolve_trust_remote_code(source: ModelSource, config: RunConfig, *, trusted: bool = False) -> bool:
    """Value of `trust_remote_code` for transformers' loaders: the only place that reads the key.

    Args:
        trusted: whether to skip asking the user, as a server must.
    """
    if source.kind == "gguf":
        return False
    if trusted:
        return config.model.trust_remote_code
    return runs_code(source.folder, home(), trust_remote_code=config.model.trust_remote_code)
