"""`docs/benchmarks.md` and its plots, made of what is in `results/` alone: `python -m benchmarks.report`.

What is written by hand (where the time goes, what the limit is) stands in `benchmarks/remarks.md` and is copied in.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks import plots, report_pairs, report_ppo, results
from benchmarks.peers import LLAMA_FACTORY
from benchmarks.ratios import (
    CLAIMS,
    LEFT_OUT,
    disagreement,
    peak_bytes,
    step_seconds,
    tokens_per_second,
    trained_per_second,
)

DOCS = results.ROOT / "docs"
PAGE = DOCS / "benchmarks.md"
REMARKS = Path(__file__).parent / "remarks.md"
COMPARED = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes", "llamafactory")
TITLES = {
    "sft": "LoRA fine-tuning, rank 8 on all linear layers, batches of rows",
    "packed": "The same, rows packed",
    "full": "Full fine-tuning, float32 weights with bfloat16 products",
    "qlora": "QLoRA, NF4 with double quantization",
}


MADE = """<!-- Made by `python -m benchmarks.report` of benchmarks/results. What is written by hand is in
benchmarks/remarks.md. -->"""
AGAIN = """`make bench` and `make bench-dpo` measure the speeds again and write this page; what was measured of PPO has
its commands beside it."""
READING = """A ratio is made within each round, of two runs that stood beside each other in time; the table has the
median of the rounds, the smallest and the largest. Speeds are real tokens a second, padding not counted."""


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    groups = result["groups"]
    parts = [
        "# Benchmarks",
        MADE,
        AGAIN,
        "## What is claimed, and what was measured",
        ratio_table(result),
        READING,
        conditions(groups),
    ]
    parts += [group_text(name, groups[name]) for name in TITLES if name in groups]
    if "dpo" in groups:
        parts.append(report_pairs.text(groups["dpo"]))
    if result.get("ppo") or result.get("ppo_memory"):
        parts.append(report_ppo.text(result.get("ppo"), result.get("ppo_memory")))
    if "sweep" in groups:
        parts += ["## What grows with what", sweep_table(groups["sweep"])]
        parts.append("![Cost against length, batch, rank and model size](images/bench-sweep.png)")
    if REMARKS.exists():
        parts.append(REMARKS.read_text().strip())
    parts += ["## How it is measured", HOW]
    return "\n\n".join(parts) + "\n"


HOW = f"""- Every contender trains in a process of its own, once a round, on the same rows once through: model
  `smollm2-135m-instruct`, template ChatML, cut at 1,024 tokens, seed 42. All settings are the YAML files in
  `benchmarks/contenders/`; `sft.json` keeps their hashes, each run's steps, the versions and the commit. The order
  rotates with the rounds. The first {LEFT_OUT} optimizer steps of a run are left out.
- Frozen weights and products are bfloat16; trained weights and the optimizer's states are float32, on all sides.
- LLF is started as its supervisor starts it, with the environment that it gives a trainer. The others have the
  environment that a user has: whatever tunes threads and memory is taken out of it.
- Tokens and times of the others come from a `TrainerCallback` that counts what passes the collator and reads the clock
  at the end of a step; LLF's come from its run folder. Peak memory is the kernel's own (`VmHWM`), read from outside.
- Held-out losses are computed by one script, in float32 and by the plain path, of what each contender has saved, after
  all of them have seen the same rows once.
- The time to the first step is measured on the untouched commands `llf train` and `llamafactory-cli train`, up to the
  first logged loss, with no data prepared before.
- For DPO all start from one saved adapter, which changes nothing yet, and make their steps of the same four pairs;
  a step's time is compared, since the contenders read different numbers of tokens for the same pairs. LLaMA-Factory
  and TRL also differ in how they split a step's pairs, see the settings. Held-out pairs are scored by one script, in
  float64 from the float32 logits of the plain path.
- The bare matrix products are those that a step of packed rows cannot do without: forward and input gradient of each
  frozen linear, five products of each adapter, and the head with its gradient at the trained positions.
- {LLAMA_FACTORY} is installed from PyPI in an environment of its own: without its dependencies, then those less
  torchaudio, whose CUDA build cannot load beside a CPU build of torch; a stub module of that name stands in, since it
  is imported whether or not there is audio.
- One group again: `python -m benchmarks.sft --only sft`; a contender's best batch:
  `python -m benchmarks.sft --search llamafactory`; a smoke test: `make bench BENCH_ARGS=--quick`."""


def ratio_table(result: dict[str, Any]) -> str:
    """One line a claim; those without runs say so."""
    lines = ["| work | ratio | smallest to largest | must | aim | |", "|---|---|---|---|---|---|"]
    for name, claim in CLAIMS.items():
        sign = "" if claim.better == "more" else "≤ "
        if name not in result["ratios"]:
            lines.append(f"| {claim.work} | | | {sign}{claim.must} | {sign}{claim.aim} | not measured |")
            continue
        ratio, spread = result["ratios"][name], result["ranges"][name]
        word = (
            "aim reached"
            if claim.reached(ratio, claim.aim)
            else "reached"
            if claim.reached(ratio, claim.must)
            else "missed"
        )
        lines.append(
            f"| {claim.work} | **{ratio:.2f}** | {spread['min']:.2f} to {spread['max']:.2f} | {sign}{claim.must} | "
            f"{sign}{claim.aim} | {word} |"
        )
    return "\n".join(lines)


def conditions(groups: dict[str, Any]) -> str:
    """Machine, data and versions, and of each group its date and commit."""
    first = next(iter(groups.values()))
    machine = first["machine"]
    words = ", ".join(machine["instructions"])
    parts = [f"Machine: {machine['cpu']}, {machine['cores']} cores ({words}), {machine['memory_gb']} GB."]
    rows = next((group["rows"] for group in groups.values() if "rows" in group), None)
    if rows is not None:
        parts[0] += f" Data: `{rows['data']}`, of which {rows['held_out']} further rows are held out."
    when = ["| group | date | commit | rounds | rows | tokens | trained |", "|---|---|---|---|---|---|---|"]
    for name, group in groups.items():
        commit = f"`{group['commit'][:10]}`{' with changes' if group['changed_files'] else ''}"
        rounds = len({run["round"] for run in group["runs"]})
        counts = (
            [f"{group['rows'][key]:,}" for key in ("rows", "tokens", "trained_tokens")]
            if group.get("settings")
            else [""] * 3
        )
        when += [f"| {name} | {group['date']} | {commit} | {rounds} | {' | '.join(counts)} |"]
    parts.append("\n".join(when))
    versions = next((group["versions"] for group in groups.values() if "versions" in group), None)
    if versions is not None:
        columns = (versions["llf"], versions["llamafactory"])
        table = ["| | LLF, TRL, PEFT, Trainer | LLaMA-Factory |", "|---|---|---|"]
        table += [f"| {name} | {' | '.join(one.get(name, '') for one in columns)} |" for name in COMPARED]
        parts.append("\n".join(table))
    return "\n\n".join(parts)


COLUMNS = ("contender", "tokens/s", "smallest to largest", "trained/s", "step, s", "peak, GB", "first step, s", "loss")


def contender_line(contender: str, runs: list[dict[str, Any]], loss: float | None) -> str:
    """The medians of a contender's runs."""
    speeds = [tokens_per_second(run) for run in runs]
    trained, step, peak, first = (
        statistics.median(read(run) for run in runs)
        for read in (trained_per_second, step_seconds, peak_bytes, lambda run: run["first_step_s"])
    )
    cells = [
        f"[{contender}](../benchmarks/contenders/{contender}.yaml)",
        f"{statistics.median(speeds):.0f}",
        f"{min(speeds):.0f} to {max(speeds):.0f}",
        f"{trained:.0f}",
        f"{step:.3f}",
        f"{peak / 1e9:.2f}",
        f"{first:.1f}",
        "" if loss is None else f"{loss:.4f}",
    ]
    return f"| {' | '.join(cells)} |"


def group_text(name: str, group: dict[str, Any]) -> str:
    """A group's table of contenders, its held-out losses and its curves."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in group["runs"]:
        by_name.setdefault(run["contender"], []).append(run)
    bare = by_name.pop("matmuls", [])
    losses = group.get("held_out", {})
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [contender_line(contender, runs, losses.get(contender)) for contender, runs in by_name.items()]
    parts = [f"## {TITLES[name]}", "\n".join(lines)]
    text = "First step: seconds from the start of the process to its end. Loss: on held-out rows."
    if losses:
        text += (
            f" After the same rows, the losses of two that are compared above differ by at most "
            f"{100 * disagreement(losses):.2f} %; before training it is {losses['untrained']:.4f}."
        )
    parts.append(text)
    if bare:
        seconds = statistics.median(run["seconds"] for run in bare)
        step = statistics.median(step_seconds(run) for run in by_name["llf-packed"])
        parts.append(
            f"The bare matrix products of a step of packed rows take {seconds:.3f} s: LLF reaches "
            f"{100 * seconds / step:.0f} % of the machine's peak at these shapes."
        )
    parts.append(f"![Loss curves of all contenders](images/bench-{name}.png)")
    return "\n\n".join(parts)


def sweep_table(group: dict[str, Any]) -> str:
    """LLF's speed and memory as one thing grows."""
    lines = ["| what grows | value | tokens/s | peak memory, GB |", "|---|---|---|---|"]
    lines += [
        f"| {run['swept']} | {run['value']} | {tokens_per_second(run):.0f} | {run['peak_bytes'] / 1e9:.2f} |"
        for run in group["runs"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Writes the page and its pictures."""
    result = results.everything()
    if not result["groups"]:
        raise SystemExit("There are no results yet: run make bench first.")
    plots.draw(result["groups"], DOCS / "images")
    PAGE.write_text(page(result))
    print(f"Wrote {PAGE.relative_to(results.ROOT)}.")


if __name__ == "__main__":
    main()
