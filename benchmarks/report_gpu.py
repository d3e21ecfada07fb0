"""The tables of a `results/gpu.json`, as Markdown: `python -m benchmarks.report_gpu results/gpu.json`."""

from __future__ import annotations

import json
import statistics
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_cells import flops_per_token
from benchmarks.ratios import tokens_per_second

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE4 = Path(__file__).with_name("table4.toml")
Run = dict[str, Any]
HEAD = ("contender", "rounds", "tokens/s", "smallest to largest", "share of the peak", "memory, GB", "LLF is")


def text(result: Mapping[str, Any]) -> str:
    """Everything that was measured, and what was not."""
    card, parts = result.get("card"), []
    if result.get("rehearsal"):
        parts.append("**A rehearsal on the CPU with the smallest models: its figures mean nothing.**")
    if card:
        memory = f", {card['memory'] / 1e9:.0f} GB" if "memory" in card else ""
        parts.append(f"{card['name']}{memory}; bfloat16 products at {result['tflops']:.1f} TFLOP/s.")
    words = ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
    changed = " with changes" if result.get("changed_files") else ""
    parts.append(f"{result.get('date', '')}, commit `{result.get('commit', '')[:10]}`{changed}; {words}.")
    for name, why in result.get("absent", {}).items():
        parts.append(f"{name} did not take part: {why}.")
    for name, cell in result["cells"].items():
        runs = [one for one in result["runs"] if one["cell"] == name]
        parts += [f"### {title(cell)}", table(cell, runs, result.get("tflops"))]
    if paper := paper_table(result):
        parts += ["### Beside the paper's Table 4", paper]
    if not_run := sorted({cell for cell, _, number in result.get("not_run", ()) if number == 0}):
        parts.append(f"The time did not suffice for the first round of: {', '.join(not_run)}.")
    return "\n\n".join(parts) + "\n"


def title(cell: Mapping[str, Any]) -> str:
    """What a cell is, in words."""
    size = cell["size"].upper()
    if cell["kind"] == "decode":
        return f"Greedy decoding after {cell['length']} tokens, {size}, batch 1"
    what = "DPO" if cell["kind"] == "dpo" else "packed rows" if cell["packed"] else "rows in batches"
    method = "QLoRA" if cell["quantized"] else "LoRA"
    more = ", activations computed again" if cell["checkpointing"] else ""
    return f"{size}, {method} of rank {cell['rank']}, {what} of up to {cell['length']} tokens{more}"


def speed(cell: Mapping[str, Any], run: Run) -> float:
    """Real tokens a second; of decoding new ones, and every answer counts."""
    if cell["kind"] == "decode":
        return float(sum(step[1] for step in run["steps"]) / sum(step[0] for step in run["steps"]))
    return tokens_per_second(run)


def share(cell: Mapping[str, Any], tokens: float, tflops: float | None) -> float | None:
    """The share of the card's own products that a speed of SFT comes to; None of anything else."""
    if cell["kind"] != "sft" or not tflops:
        return None
    rows = cell["rows"]
    needed = flops_per_token(cell["shape"], cell["rank"], rows["context"], rows["trained_tokens"] / rows["tokens"])
    return tokens * needed / (tflops * 1e12)


def table(cell: Mapping[str, Any], runs: list[Run], tflops: float | None) -> str:
    """A line a contender: medians of its rounds. LLF's ratio is made within rounds."""
    by_name: dict[str, list[Run]] = {}
    for one in runs:
        by_name.setdefault(one["contender"], []).append(one)
    ours = {
        one["round"]: speed(cell, one)
        for name, found in by_name.items()
        if name.startswith("llf")
        for one in found
        if "steps" in one
    }
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for name, found in by_name.items():
        good = [one for one in found if "steps" in one]
        if not good:
            why = found[-1]["error"].splitlines()[-1][:120].replace("|", "/")
            lines.append(f"| {name} | 0 | failed: {why} |{' |' * (len(HEAD) - 3)}")
            continue
        speeds = [speed(cell, one) for one in good]
        median = statistics.median(speeds)
        part = share(cell, median, tflops)
        ratios = [ours[one["round"]] / speed(cell, one) for one in good if one["round"] in ours]
        against = ""
        if ratios and not name.startswith("llf"):
            against = f"{statistics.median(ratios):.2f} times as fast{memory_beside(by_name, good)}"
        cells = [
            name, str(len(good)), f"{median:,.0f}", f"{min(speeds):,.0f} to {max(speeds):,.0f}",
            "" if part is None else f"{part:.0%}",
            f"{gigabytes(good)}{remarks(good)}", against,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def peak(runs: list[Run]) -> float:
    """The median of the runs' peaks, in bytes: of the card, in a rehearsal of the process."""
    return statistics.median(one.get("peak_cuda_bytes") or one.get("peak_bytes", 0) for one in runs)


def gigabytes(runs: list[Run]) -> str:
    """That as people write it."""
    return f"{peak(runs) / 1e9:.2f}"


def memory_beside(by_name: Mapping[str, list[Run]], theirs: list[Run]) -> str:
    """What LLF needs of a contender's memory."""
    ours = [one for name, runs in by_name.items() if name.startswith("llf") for one in runs if "steps" in one]
    return f", in {peak(ours) / peak(theirs):.2f} of its memory" if ours and peak(theirs) else ""


def remarks(runs: list[Run]) -> str:
    """What LLF's runs say of themselves beside their peak."""
    words = []
    if all("forecast_bytes" in one for one in runs):
        words.append(f"forecast {statistics.median(one['forecast_bytes'] for one in runs) / 1e9:.2f}")
    words += ["activations computed again"] * any(one.get("checkpointing") for one in runs)
    words += ["memory ran out, parts halved"] * any(one.get("halved") for one in runs)
    return f" ({', '.join(words)})" if words else ""


def paper_table(result: Mapping[str, Any]) -> str:
    """The paper's rows of the 7B model, and ours of the same setting on this card."""
    named = tomllib.loads(TABLE4.read_text())
    cells = {name: cell for name, cell in result["cells"].items() if cell["paper"]}
    if not cells:
        return ""
    lines = ["| who | method | memory, GB | tokens/s |", "|---|---|---|---|"]
    lines += [f"| the paper | {method} | {memory} | {tokens:,.0f} |" for method, memory, tokens in named["Llama2-7B"]]
    for name, cell in cells.items():
        for who in dict.fromkeys(one["contender"] for one in result["runs"] if one["cell"] == name):
            good = [one for one in result["runs"] if (one["cell"], one["contender"]) == (name, who) and "steps" in one]
            if good:
                tokens = statistics.median(speed(cell, one) for one in good)
                method = "QLoRA" if cell["quantized"] else "LoRA"
                lines.append(f"| {who}, here | {method} | {gigabytes(good)} | {tokens:,.0f} |")
    return "\n".join(lines) + f"\n\nThe paper's figures: {named['source']}, of Llama 2 and its data; another card."


if __name__ == "__main__":
    print(text(json.loads(Path(sys.argv[1]).read_text())))
