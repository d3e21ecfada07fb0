"""A form whose Start makes a run folder and no process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import llf_core.launch.parameter_sweep
from llf_core.config import RunConfig
from llf_core.launch import Run
from llf_core.launch.queue import enqueue
from llf_core.runs import create_run
from llf_widgets.forms import Studio

if TYPE_CHECKING:
    from pathlib import Path


class Launches(list):
    """The configs that Start was given; `name` and `queue` are the last run's."""

    name = ""
    queue = False


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    seen = Launches()

    def launch(config: Any, *, name: str, notebook: Any = None, queue: bool = False, **_: Any) -> Run:
        config = RunConfig.load(config)
        seen.append(config)
        seen.name, seen.queue = name, queue
        run = Run(create_run(config.yaml(defaults=True), name))
        if queue:
            enqueue(run.folder)
        return run

    monkeypatch.setattr(llf_core.launch, "launch", launch)
    monkeypatch.setattr(llf_core.launch.parameter_sweep, "launch", launch)
    return seen


@pytest.fixture
def studio(launches: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.chdir(tmp_path)
    return Studio()
