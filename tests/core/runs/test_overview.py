"""A run as `llf runs show` tells it."""

import pytest

from llf_core.runs.run_text import overview

FACTS = {
    "id": "20261124-142530-tiny-sft-lora", "name": "lr 3e-3", "state": "finished", "step": 30, "total": 30,
    "attempt": 2, "reason": None, "finding": None, "created": 1_800_000_000.0, "ended": 1_800_000_430.0,
    "remaining": None,
    "model": "tiny", "dataset": "rows", "stage": "sft", "method": "lora", "loss": 0.29331, "eval_loss": "NaN",
    "counted": [{"name": "rewards/accuracies", "label": "Accuracy", "form": "share", "value": 0.83}],
    "metrics": {"learning_rate": 5e-5}, "checkpoints": [20, 30], "output": "/home/output", "folder": "/home",
    "bytes": 424_000, "tags": ["keep"], "note": "",
}  # fmt: skip


def shown(**changes):
    lines = overview(
        FACTS | changes,
        changed={"learning_rate": 1e-3, "warmup_steps": 0.1, "stage": "sft"},
        called="2026",
        now=1_800_000_460,
    )
    found = {}
    for line in lines:
        label = line[:13].strip() or label  # noqa: F821 - of the line before
        found[label] = f"{found[label]}\n{line[13:]}" if label in found else line[13:]
    return found


def test_a_finished_run():
    told = shown()
    assert list(told) == [
        "Run", "Name", "State", "Time", "Model", "Data", "Method", "Changed", "Numbers", "Checkpoints", "Result",
        "Folder", "Tags", "Next",
    ]  # fmt: skip
    assert told["State"] == "finished at step 30 of 30, attempt 2"
    assert told["Time"].endswith("(7 min ago), took 7:10")
    assert told["Changed"] == "learning_rate 1e-3, warmup_steps 0.1"
    assert told["Numbers"] == "loss 0.2933, eval_loss NaN, accuracy 83 %, learning rate 5e-5"
    assert told["Checkpoints"] == "at step 20, 30"
    assert (
        told["Next"]
        == "llf runs loss 2026  # compare with the base model\nllf runs branch 2026  # branch with changed settings"
    )


@pytest.mark.parametrize(
    ("changes", "commands"),
    [
        ({"state": "running", "remaining": 30.0}, ["stop", "checkpoint"]),
        ({"state": "stopped"}, ["resume", "branch"]),
        ({"state": "failed", "checkpoints": []}, ["resume"]),
        ({"state": "finished", "output": None, "checkpoints": []}, []),
        ({"state": "broken"}, []),
    ],
)
def test_what_is_next_is_what_the_run_takes(changes, commands):
    told = shown(**changes).get("Next", "")
    assert [line.split()[2] for line in told.splitlines()] == commands
    assert ("restart" in told) is (changes.get("checkpoints") == [] and bool(commands))


def test_long_values_go_on_in_the_next_line_within_80_columns():
    lines = overview(
        FACTS | {"reason": "It was too large. " * 20}, changed={}, findings=["It rose. " * 30], called="2026"
    )
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("Found") for line in lines) == 1
