"""What GGUF quantizations of the embedded model cost: bytes, KL divergence, changed greedy tokens, perplexity, speed.

    python -m benchmarks.export [--rounds 5] [--quantizations f16,Q8_0,…] [--folder FOLDER]

The receipt of `llf.export` has the quality, in llama.cpp and with dequantized weights in transformers. The speed is
measured apart, since it depends on what else runs: one thread decodes 16 tokens of each file in turns; counted is the
processor time of that thread, and kept the median of all rounds and its ratio to f16.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from llf_core.config.model import EMBEDDED
from llf_core.export import export
from llf_core.export.gguf.program import FILE_TYPES

RESULT = Path(__file__).parent / "results" / "export.json"
PROMPT = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
"""`What is the capital of France?` by the model's chat template."""
TOKENS = 16
VERSIONS = ("llama-cpp-py-sync", "gguf", "torch", "transformers")


def speeds(files: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of processor time of each file, one value a round."""
    from llf_core.export.gguf.llama_cpp import LlamaCpp

    models = {name: LlamaCpp(path, 512, 1) for name, path in files.items()}
    found: dict[str, list[float]] = {name: [] for name in files}
    for number in range(rounds + 1):
        for name, model in models.items():
            model.logits(PROMPT, first=len(PROMPT) - 1)
            began = time.process_time()
            model.decode(PROMPT, TOKENS)
            if number:  # the first round reads the files
                found[name].append(TOKENS / (time.process_time() - began))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quantizations", default=",".join(("f16", *FILE_TYPES)))
    parser.add_argument("--folder", type=Path, help="exports that an earlier run has left; else they are made")
    parser.add_argument("--speed", action="store_true", help="measure only the speed of the files of --folder")
    asked = parser.parse_args()
    names = asked.quantizations.split(",")
    with tempfile.TemporaryDirectory() as work:
        folder = asked.folder or Path(work) / "gguf"
        if not asked.speed:
            made = export(EMBEDDED, "gguf", folder=folder, quantizations=names, overwrite=True)
            print(made)
        receipt = json.loads((folder / "receipt.json").read_text())
        files = {row["quantization"]: folder / f"{EMBEDDED}-{row['quantization']}.gguf" for row in receipt["table"]}
        measured = speeds(files, asked.rounds)
    rows = []
    for row in receipt["table"]:
        mine = measured[row["quantization"]]
        ratios = [one / base for one, base in zip(mine, measured["f16"], strict=True)]
        kept = {key: value for key, value in row.items() if not key.startswith("tokens_per_second")}
        speed = {"tokens_per_core_second": statistics.median(mine), "speed_ratio": statistics.median(ratios)}
        rows.append(kept | speed)
        print(row["quantization"], speed)
    result = {
        "model": EMBEDDED,
        "checks": [{key: one[key] for key in ("name", "passed", "measured")} for one in receipt["checks"]],
        "rows": rows,
        "rounds": asked.rounds,
        "machine": {"processor": platform.machine(), "python": platform.python_version()},
        "versions": {name: version(name) for name in VERSIONS},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
