"""What is stored of `results/sft.json` and `dpo.json`: every run of every group, and the ratios made of them."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT
from benchmarks.ratios import summary

RESULTS = Path(__file__).parent / "results" / "sft.json"
PAIRS = RESULTS.with_name("dpo.json")
OTHERS = ("ppo", "ppo_memory", "methods", "chat", "export", "evaluate", "evaluate_tasks")


def read(file: Path = RESULTS) -> dict[str, Any]:
    """What is stored; an empty result where nothing is."""
    if not file.exists():
        return {"format": 1, "groups": {}}
    stored: dict[str, Any] = json.loads(file.read_text())
    return stored


def everything() -> dict[str, Any]:
    """What is stored in both files, as one result, and what was measured of PPO and of the methods."""
    groups = read(RESULTS)["groups"] | read(PAIRS)["groups"]
    ratios, ranges = summary(groups)
    result = {"format": 1, "groups": groups, "ratios": ratios, "ranges": ranges}
    files = {name: RESULTS.with_name(f"{name}.json") for name in OTHERS}
    return result | {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def store(file: Path, name: str, group: dict[str, Any]) -> dict[str, Any]:
    """Puts a group in the place of the one that was stored, and makes the ratios anew."""
    result = read(file)
    result["groups"][name] = group
    result["ratios"], result["ranges"] = summary(result["groups"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text_of(result))
    return result


SAME = ("code", "changed_files", "rows", "versions", "settings", "machine")


def continued(file: Path, name: str, group: dict[str, Any]) -> dict[str, Any]:
    """The stored group, to which further rounds may be added."""
    stored: dict[str, Any] | None = read(file)["groups"].get(name)
    if stored is None:
        raise SystemExit(f"There are no rounds of {name} to add to: leave --add out.")
    other = [key for key in SAME if stored.get(key) != group.get(key)]
    if other:
        raise SystemExit(f"The stored rounds of {name} are of another {' and '.join(other)}: leave --add out.")
    return stored


def text_of(result: dict[str, Any]) -> str:
    """JSON in which each run is one line."""
    runs: list[str] = []

    def folded(value: Any) -> Any:
        if isinstance(value, dict) and "contender" in value:
            runs.append(json.dumps(value))
            return f"@run {len(runs) - 1}@"
        if isinstance(value, dict):
            return {key: folded(one) for key, one in value.items()}
        return [folded(one) for one in value] if isinstance(value, list) else value

    text = json.dumps(folded(result), indent=1)
    for number, run in enumerate(runs):
        text = text.replace(f'"@run {number}@"', run, 1)
    return text + "\n"


def circumstances() -> dict[str, Any]:
    """When, where and of what a group was measured."""
    flags = Path("/proc/cpuinfo").read_text()
    changed = _git("status", "--porcelain", "--", "llf_core", "benchmarks", ":!benchmarks/results")
    model = re.search(r"model name\s*: (.*)", flags)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": {
            "cpu": model[1] if model else platform.processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "instructions": [name for name in ("avx512f", "avx512_bf16", "amx_bf16") if name in flags],
            "system": platform.platform(),
        },
        "commit": _git("rev-parse", "HEAD"),
        "code": _git("rev-parse", "HEAD:llf_core"),
        "changed_files": len(changed.splitlines()),
    }


def _git(*words: str) -> str:
    if not shutil.which("git"):
        return ""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
