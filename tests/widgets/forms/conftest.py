"""A form whose Start makes a run folder and no process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import llf_core.launch
from llf_core.launch import Run
from llf_core.runs import create_run
from llf_widgets.forms import Studio

if TYPE_CHECKING:
    from pathlib import Path


class Launches(list):
    """The configs that Start was given; `name` is the last run's."""

    name = ""


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    seen = Launches()

    def launch(config: Any, *, name: str, notebook: Any = None) -> Run:
        seen.append(config)
        seen.name = name
        return Run(create_run(config.yaml(defaults=True), name))

    monkeypatch.setattr(llf_core.launch, "launch", launch)
    return seen


@pytest.fixture
def studio(launches: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.chdir(tmp_path)
    return Studio()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama and its tokenizer. Never write to it."""
    from tests.tiny import tiny_llama, tiny_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
