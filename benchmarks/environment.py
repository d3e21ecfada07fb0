"""A trainer's environment variables: what waiting threads and the allocator cost, alone and beside others.

    python benchmarks/environment.py [--rounds 5] [--steps 6] [--layers 6]

Each setting runs in processes of its own, in turns, on an idle machine and beside one busy process a core. A step is
forward and backward of a LoRA-tuned Llama of SmolLM2's shapes and few layers, 1,024 tokens in bfloat16. Kept are the
best and the median step of all rounds, and the peak of the resident set. Which variables a trainer gets is decided in
`llf_core/launch/local_process.py`.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUSY = "while True: pass"
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE")
GB = 1 << 30


def allocator(mapped: int, trim: int, **more: int) -> dict[str, str]:
    """glibc's variables: allocations from `mapped` bytes on are mapped; `trim` free bytes at the top are kept."""
    values = {"MALLOC_MMAP_THRESHOLD_": mapped, "MALLOC_TRIM_THRESHOLD_": trim, **more}
    return {name: str(value) for name, value in values.items()}


KEEPS = allocator(4 * GB, 16 * GB)
SPIN = {"GOMP_SPINCOUNT": "10000"}
SPINS = (0, 1_000, 5_000, 10_000, 20_000, 50_000, 200_000)
SETTINGS: dict[str, dict[str, str]] = {
    "nothing set": {},
    "sleep (OMP_WAIT_POLICY=PASSIVE)": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"spin {count:,}": {"GOMP_SPINCOUNT": str(count)} for count in SPINS},
    "spin without end": {"OMP_WAIT_POLICY": "ACTIVE"},
    "spin 10,000, freed memory kept": {**SPIN, **KEEPS},
    "spin 10,000, freed memory kept, one arena": {**SPIN, **KEEPS, "MALLOC_ARENA_MAX": "1"},
    "spin 10,000, freed memory kept, 64 MB at a time": {**SPIN, **KEEPS, "MALLOC_TOP_PAD_": str(64 << 20)},
    "spin 10,000, mapped from 64 MB on, 1 GB kept": {**SPIN, **allocator(64 << 20, GB)},
    "spin 10,000, mapped from 256 MB on, 1 GB kept": {**SPIN, **allocator(256 << 20, GB)},
    "spin 10,000, huge pages by glibc": {**SPIN, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "spin 10,000, huge pages by torch": {**SPIN, "THP_MEM_ALLOC_ENABLE": "1"},
    "spin 10,000, freed memory kept, huge pages by glibc": {
        **SPIN, **KEEPS, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    },
}  # fmt: skip


def train(steps: int, layers: int) -> None:
    """Prints the seconds of each step and the peak resident set as JSON; two further steps come first, untimed."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own short name
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1_536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
    lengths = [random.Random(0).randrange(96, 128) for _ in range(steps + 2)]  # documents differ, and so do buffers
    seconds = []
    for length in lengths:
        ids = torch.randint(0, 49_152, (8, length))
        began = time.perf_counter()
        logits = model(input_ids=ids, use_cache=False).logits
        F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds[2:], "peak": int(peak.split()[1]) * 1024}))


def run(chosen: dict[str, str], asked: argparse.Namespace, *, busy: bool) -> dict[str, object]:
    """One process with the variables of a setting, alone or beside one busy process a core."""
    clean = {name: value for name, value in os.environ.items() if name not in NAMES and not name.startswith("MALLOC_")}
    cores = len(os.sched_getaffinity(0))
    env = {**clean, "OMP_NUM_THREADS": str(cores), **chosen}
    steps = max(2, asked.steps // 3) if busy else asked.steps
    command = [sys.executable, __file__, "--child", "--steps", str(steps), "--layers", str(asked.layers)]
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cores if busy else 0)]
    try:
        out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    finally:
        for other in others:
            other.kill()
            other.wait()
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--only", nargs="*", default=[], help="settings whose name holds one of these words")
    parser.add_argument("--where", nargs="*", default=["alone", "beside"])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        train(asked.steps, asked.layers)
        return
    settings = {
        name: chosen for name, chosen in SETTINGS.items() if not asked.only or any(word in name for word in asked.only)
    }
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {name: {w: [] for w in asked.where} for name in settings}
    for number in range(asked.rounds):
        for name in random.sample(list(settings), len(settings)):
            for where in asked.where:
                runs[name][where].append(run(settings[name], asked, busy=where == "beside"))
        print(f"round {number + 1} of {asked.rounds} is done", flush=True)
    rows: dict[str, dict[str, Any]] = {
        name: {"variables": settings[name], **{where: summary(found) for where, found in both.items()}}
        for name, both in runs.items()
    }
    print(f"{'setting':55}" + "".join(f"{where + ': best':>15}{'median':>9}{'peak':>9}" for where in asked.where))
    for name, row in rows.items():
        cells = [row[where] for where in asked.where]
        figures = (f"{cell['best']:13.3f} s{cell['median']:7.3f} s{cell['peak'] / 1e9:6.2f} GB" for cell in cells)
        print(f"{name:55}" + "".join(figures))
    result = {
        "what": "seconds of a training step under environment variables of the trainer",
        "settings": rows,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "versions": {name: importlib.metadata.version(name) for name in ("llf", "torch", "transformers")},
    }
    (HERE / "results" / "environment.json").write_text(json.dumps(result, indent=2) + "\n")


def summary(found: list[dict[str, Any]]) -> dict[str, float]:
    """Best and median step of all rounds, and the median of the peaks."""
    seconds = [second for one in found for second in one["seconds"]]
    return {
        "best": round(min(seconds), 4),
        "median": round(statistics.median(seconds), 4),
        "peak": statistics.median(one["peak"] for one in found),
    }


if __name__ == "__main__":
    main()
