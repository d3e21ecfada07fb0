"""Run folders written by hand, as a trainer would write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llf_core.runs import Checkpoints, RunFolder, RunWriter, create_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIG = "model_name_or_path: org/tiny\nfinetuning_type: lora\nlora_rank: 4\ndataset: demo\nnum_train_epochs: 2\n"


class Trainer:
    """Writes one run; `heartbeat` makes this very process its trainer, so that the run counts as live."""

    def __init__(self, home: Path, name: str = "tiny", total: int = 10) -> None:
        self.folder: RunFolder = create_run(CONFIG, name, home)
        self.writer = RunWriter(self.folder, 1)
        self.writer.start_heartbeat(0.05)
        self.writer.status(state="running", total=total)

    def steps(self, first: int, last: int, **values: Any) -> None:
        """Logs steps with a loss of 2 - step / 10 unless told otherwise."""
        for step in range(first, last + 1):
            self.writer.metric(step, {"loss": 2 - step / 10, "learning_rate": 1e-4, **values})
            self.writer.status(step=step)
        self.writer.flush()

    def checkpoint(self, step: int) -> None:
        """Writes a checkpoint that counts."""
        checkpoints = Checkpoints(self.folder)
        checkpoints.path(step).mkdir(parents=True)
        (checkpoints.path(step) / "weights").write_bytes(bytes(2000))
        size = checkpoints.finish(step)
        self.writer.event("checkpoint", step=step, path=f"checkpoints/checkpoint-{step}", bytes=size)


@pytest.fixture
def trainer(llf_home: Path) -> Iterator[Callable[..., Trainer]]:
    """Makes trainers, and ends their heartbeats."""
    made: list[Trainer] = []

    def make(**options: Any) -> Trainer:
        made.append(Trainer(llf_home, **options))
        return made[-1]

    yield make
    for one in made:
        one.writer.close("finished")
