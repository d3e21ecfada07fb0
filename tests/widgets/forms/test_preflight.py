"""What Start looks at beside the config."""

from __future__ import annotations

import os
import sys
import types
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from llf_core.cli import app
from llf_core.config import RunConfig
from llf_core.install_command import install_command
from llf_core.launch.queue import RunAhead
from llf_core.runs import create_run
from llf_widgets.forms import Studio, preflight

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = RunConfig.load({"dataset": "llf_demo"})


def test_missing_package_is_named_with_the_command() -> None:
    message = preflight.check_packages(("json", "surely_not_installed"))
    command = install_command("train")
    assert message is not None
    assert message.level == "error"
    assert message.text == (
        f"Training needs `surely_not_installed`, which is not installed. Run `{command}` and "
        "restart the kernel. The form keeps its values."
    )
    assert message.copy == command
    assert preflight.check_packages(("json", "os")) is None


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may write everywhere
    message = preflight.check_writable(tmp_path / "llf")
    assert message is not None
    assert str(tmp_path) in message.text


@pytest.mark.parametrize("place", ["llf", "llf/runs"])
def test_a_file_in_the_place_of_the_runs_is_a_sentence(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "llf"))
    studio = Studio()
    said = f"{tmp_path / place} is not a folder, so runs cannot be saved in {tmp_path / 'llf' / 'runs'}. "
    assert [one["text"] for one in studio._start._messages if one["text"].startswith(said)]
    assert not studio._start.ready
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        create_run("", "first")
    done = CliRunner().invoke(app, ["runs", "list"])
    assert str(done.exception).startswith(said)


def test_folder_that_does_not_exist_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    assert preflight.check_writable(tmp_path / "a" / "b") is None


@pytest.mark.parametrize(("free", "level"), [(99, "error"), (100, "warning"), (119, "warning"), (120, None)])
def test_disk_is_compared_with_what_the_run_writes(
    free: int, level: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "free_bytes", lambda _: free * 10**8)
    message = preflight.check_disk(100 * 10**8, tmp_path)
    assert (message.level if message else None) == level
    if message:
        assert "10.0 GB" in message.text


def test_unknown_size_says_nothing(tmp_path: Path) -> None:
    assert preflight.check_disk(None, tmp_path) is None


def test_a_model_of_a_size_that_none_has_does_not_break_the_form(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": {}}')
    assert preflight.disk_bytes(RunConfig.load({"model_name_or_path": str(tmp_path), "dataset": "demo"})) is None


def test_other_runs_are_named_with_the_time_they_have_left() -> None:
    one = RunAhead("20261124-1-a", "smollm2-dpo", waits=False, step=40, total=60, remaining=180.0)
    message = preflight.check_machine_load([one])
    assert message is not None
    assert message.level == "note"
    assert message.text == (
        "Another run uses this device: smollm2-dpo (step 40 of 60), about 3 min left. "
        "Running both at once takes about twice as long. If queued, this run starts after it."
    )
    both = preflight.check_machine_load([one, one])
    assert both is not None
    assert (
        "and 1 more. Running all at once takes about 3 times as long. If queued, this run starts after these 2."
        in both.text
    )
    waits = RunAhead("20261124-1-b", "next", waits=True, step=0, total=0, remaining=None)
    queued = preflight.check_machine_load([one, waits])
    assert queued is not None
    assert "3 min left; 1 queued. Running both at once takes about twice as long." in queued.text
    alone = preflight.check_machine_load([waits])
    assert alone is not None
    assert alone.text == "Another run is about to start on this device: next. If queued, this run starts after it."
    assert preflight.check_machine_load([]) is None


def test_colab_without_drive_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert preflight.check_persistence(tmp_path) is None
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    message = preflight.check_persistence(tmp_path)
    assert message is not None
    assert message.level == "warning"
    assert preflight.check_persistence(preflight.DRIVE / "llf") is None


def test_all_of_it_is_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert preflight.preflight_checks(CONFIG) == []
    monkeypatch.setattr(preflight, "free_bytes", lambda _: 1000)
    assert [message.level for message in preflight.preflight_checks(CONFIG)] == ["error"]
    assert preflight.preflight_checks(None) == []
