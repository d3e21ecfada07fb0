"""Where a model's files are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["embedded", "folder", "gguf", "hub"]


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine.

    Attributes:
        name: as in the config: the name of the embedded model, a path or a hub id.
        path: folder with config, weights and tokenizer; for `gguf` the file itself.
        revision: commit of a hub's model; None for other models.
        sha256: checksum of the file that the model was converted from, where it was verified; else None.
        license: as its author names it, e.g. `apache-2.0`. None if unknown.
        portable_name: base model name by which others can load an adapter: a hub id or a path outside `LLF_HOME`. If
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
        """Folder to load from: `from_pretrained` takes a GGUF file by its folder and name."""
        return self.path.parent if self.kind == "gguf" else self.path

    @property
    def load_arguments(self) -> dict[str, Any]:
        """Arguments of `from_pretrained` of a tokenizer or a config, besides the folder, such as a GGUF file's name."""
        return {"gguf_file": self.path.name} if self.kind == "gguf" else {}
