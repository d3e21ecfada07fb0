"""Where a model's bytes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["embedded", "folder", "gguf", "hub"]


@dataclass(frozen=True)
class ModelSource:
    """A model found on this machine.

    Attributes:
        name: what the config says: the embedded name, a path or a hub id.
        path: the folder with config, weights and tokenizer; for `gguf` the file itself.
        kind: which of the four it is.
        revision: the commit of a hub's model.
        sha256: of the bytes it was made from, where they were verified.
        license: as its maker names it, e.g. `apache-2.0`.
        portable_name: what others load as the base of an adapter: a hub id or a path outside `LLF_HOME`; None
            where there is no such thing, and the tuned model is then written whole.
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
        """The folder that transformers loads from."""
        return self.path.parent if self.kind == "gguf" else self.path

    @property
    def load_arguments(self) -> dict[str, Any]:
        """What `from_pretrained` of a tokenizer or a config needs besides the folder."""
        return {"gguf_file": self.path.name} if self.kind == "gguf" else {}
