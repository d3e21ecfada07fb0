"""Report on the demo run: whether its loss decreased, and how the model's completions changed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llf_core.config.name_checks.data_sets import DEMO
from llf_core.evaluation.answers import Answer, answer_in_child
from llf_core.runs import RunReader, list_runs
from llf_core.untrusted import visible

if TYPE_CHECKING:
    from llf_core.launch import Run

PROMPTS = (
    "What is the capital of France?",
    "How do plants make their food?",
    "What makes a good friend?",
)
MIN_LOSSES = 5
MAX_LOSS_RATIO = 0.8
COLUMN = 44


def newest_demo() -> str:
    """Id of the newest run on the demo data; `last` if there is none."""
    return next((row.id for row in list_runs(limit=sys.maxsize).rows if row.dataset == DEMO), "last")


def stored_answers(run: Run) -> list[Answer]:
    """The newest stored completions of each prompt that both the base and the tuned model have completed."""
    texts: dict[str, dict[str, str]] = {}
    for sample in RunReader(run.folder).samples():
        prompt, of, text = (sample.get(name) for name in ("prompt", "of", "text"))
        if sample.get("kind") == "answer" and isinstance(prompt, str) and isinstance(text, str):
            texts.setdefault(prompt, {})[str(of)] = text
    return [
        Answer(prompt, both["base"], both["tuned"])
        for prompt, both in texts.items()
        if {"base", "tuned"} <= both.keys()
    ]


def report_on(run: Run) -> tuple[bool, str]:
    """Judge a demo run, to see after an installation that training works.

    Completions that are not stored yet are generated in a child process, and stored with the run.

    Returns:
        Whether it finished with at least 5 logged losses, of which the mean of the last three is below 0.8 times (a
        rule of thumb) the mean of the first three; and the report as text.
    """
    status = run.status()
    losses = RunReader(run.folder).metrics().values("loss")
    lines = [f"{run.id}: {status.state} at step {status.step} of {status.total}."]
    fallen = False
    if len(losses) >= MIN_LOSSES:
        first, last = float(losses[:3].mean()), float(losses[-3:].mean())
        fallen = last < MAX_LOSS_RATIO * first
        lines.append(
            f"Training loss: {first:.3f} in the first three of {len(losses)} records, {last:.3f} in the last three."
        )
    good = status.state == "finished" and fallen
    if status.state != "finished":
        lines.append(status.reason or "")
    elif not fallen:
        lines.append(
            f"Expected at least {MIN_LOSSES} losses, and the last three under {MAX_LOSS_RATIO} of the first three."
        )
    if status.state == "finished":
        answers = stored_answers(run) or answer_in_child(run.id, PROMPTS)
        lines += [
            "",
            side_by_side(answers),
            "",
            f"Look at it: make lab, then llf.Monitor({run.id!r}) in a cell.",
        ]
    return good, "\n".join(lines)


def side_by_side(answers: list[Answer]) -> str:
    """Format completions for a terminal, base model on the left, without invisible characters (`visible`)."""
    import textwrap

    rows = [("base", "tuned"), ("-" * COLUMN, "-" * COLUMN)]
    text = [f"{left:<{COLUMN}}  {right}" for left, right in rows]
    for one in answers:
        left, right = (textwrap.wrap(side, COLUMN) or [""] for side in (visible(one.base), visible(one.tuned)))
        height = max(len(left), len(right))
        left, right = (side + [""] * (height - len(side)) for side in (left, right))
        text.append(f"> {visible(one.prompt)}")
        text += [f"{a:<{COLUMN}}  {b}".rstrip() for a, b in zip(left, right, strict=True)]
        text.append("")
    return "\n".join(text).rstrip()
