"""LLaMA-Factory, and the server of transformers, in environments of their own: made on first use, then shared.

0.9.5 is installed without its dependencies, then those less torchaudio, whose CUDA build cannot load beside a CPU
build of torch; a stub module of that name stands in, since LLaMA-Factory imports it whether or not there is audio. The
authors' packages of GaLore and BAdam are there too.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

LLAMA_FACTORY = "llamafactory==0.9.5"
OPTIMIZERS = ("galore-torch", "badam", "bitsandbytes")
FOLDER = Path.home() / ".cache" / "llf-peers" / "llamafactory"
SERVING_FOLDER = FOLDER.parent / "transformers"
STUB = {
    "torchaudio/__init__.py": '__version__ = "2.11.0"\n',
    "torchaudio-2.11.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.11.0\n",
}
PACKAGES = (
    *("torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes", "llamafactory", "llf"),
    *("galore-torch", "badam"),
)


def peer_environment(folder: Path = FOLDER) -> Path:
    """The peer's `llamafactory-cli`, installed where it is not there yet."""
    command = folder / "bin" / "llamafactory-cli"
    if (folder / ".complete").exists():
        return command
    print(f"Installing {LLAMA_FACTORY} into {folder} …", flush=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q"]
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    subprocess.run([*pip, "--no-deps", LLAMA_FACTORY], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (metadata,) = site.glob("llamafactory-*.dist-info/METADATA")
    needs = [
        line.removeprefix("Requires-Dist: ")
        for line in metadata.read_text().splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line and "torchaudio" not in line
    ]
    subprocess.run([*pip, *needs, *OPTIMIZERS], check=True)
    for name, text in STUB.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    (folder / ".complete").touch()
    return command


def serving_environment(folder: Path = SERVING_FOLDER) -> Path:
    """The command `transformers` of the version that is installed here, with what `transformers serve` needs."""
    command, version = folder / "bin" / "transformers", importlib.metadata.version("transformers")
    if (folder / ".complete").exists() and (folder / ".complete").read_text() == version:
        return command
    print(f"Installing transformers[serving]=={version} into {folder} …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, f"transformers[serving]=={version}"], check=True)
    (folder / ".complete").write_text(version)
    return command


def versions(python: str | Path = sys.executable) -> dict[str, str]:
    """The versions of what matters here, as another interpreter has them installed."""
    code = (
        "import importlib.metadata as m, json, platform\n"
        f"have = {{d.metadata['Name'].lower(): d.version for d in m.distributions()}}\n"
        f"have = {{n: have[n] for n in {PACKAGES!r} if n in have}}\n"
        "print(json.dumps({'python': platform.python_version()} | have))"
    )
    done = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
