"""The section of `docs/benchmarks.md` about evaluations, made of `results/evaluate.json` and `evaluate_tasks.json`."""

from __future__ import annotations

from typing import Any


def text(losses: dict[str, Any] | None, tasks: dict[str, Any] | None) -> str:
    """The section.

    Args:
        losses: what `benchmarks.evaluate` stored; None if nothing is.
        tasks: what `benchmarks.evaluate_tasks` stored; None if nothing is.
    """
    parts = ["## Evaluation"]
    if losses is not None:
        parts.append(losses_text(losses))
    if tasks is not None:
        parts += [tasks_text(tasks), tasks_table(tasks["tasks"])]
    return "\n\n".join(parts)


def losses_text(result: dict[str, Any]) -> str:
    """Tokens a second of `llf eval`'s losses."""
    rounds, tokens = result["rounds"], result["tokens"]
    ratios = [one["ratio"] for one in rounds]
    own, theirs = (tokens / min(one[key] for one in rounds) for key in ("llf_s", "transformers_s"))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return (
        f"`python -m benchmarks.evaluate`: `llf eval` computes the losses of {tokens:,} tokens at "
        f"**{result['ratio']:.2f}** times the speed of a plain loop with transformers (median of {len(rounds)} rounds, "
        f"{spread}; the loop in its fastest batch size, {result['batch']}, with the logits of the measured positions "
        f"alone in float32). Fastest round: {own:,.0f} and {theirs:,.0f} tokens/s, the embedded model in float32, "
        f"{result['threads']} threads. The losses agree to 1e-5. {measured(result)}"
    )


def tasks_text(result: dict[str, Any]) -> str:
    """Time of the tasks of lm-eval."""
    return (
        f"`python -m benchmarks.evaluate_tasks`: the tasks that ship, {result['limit']} examples each, take "
        f"**{result['ratio']:.2f}** of the processor time of `lm_eval --model hf` in its fastest batch size "
        f"({result['lowest']:.2f} to {result['highest']:.2f}), with the same values. {result['threads']} thread. "
        f"{measured(result)}"
    )


def tasks_table(tasks: list[dict[str, Any]]) -> str:
    """A line for each task."""
    lines = ["| task | solved examples | LLF, s | lm_eval, s | batch size | ratio |", "|---|---|---|---|---|---|"]
    lines += [
        f"| `{one['task']}` | {one['n_shot']} | {one['llf_s']:.2f} | {one['hf_s']:.2f} | {one['batch_size']} | "
        f"{one['ratio']:.2f} |"
        for one in tasks
    ]
    return "\n".join(lines)


def measured(result: dict[str, Any]) -> str:
    """When and of what it was measured."""
    changes = " with changes" if result["changed_files"] else ""
    machine = result["machine"]
    return f"{result['date']}, `{result['commit'][:10]}`{changes}, {machine['cpu']}, {machine['cores']} cores."
