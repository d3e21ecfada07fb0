"""Run ids, and making and opening folders."""

import json
import multiprocessing
import re
from pathlib import Path

import pytest

from llf_core.redaction.file_modes import ModeError
from llf_core.runs import RunFolder, create_run, home, list_runs, open_run, read_meta, read_status
from llf_core.runs.creation import slug
from llf_core.runs.folder import RUN_ID, HomeError, check_run_id, run_ids


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SmolLM2 / SFT!", "smollm2-sft"),
        ("../../etc/passwd", "etc-passwd"),
        ("a..b", "a.b"),
        ("…", "run"),
        ("", "run"),
        ("Ünïcode name", "n-code-name"),
        ("x" * 300, "x" * 60),
    ],
)
def test_slug(name, expected):
    assert slug(name) == expected


@pytest.mark.parametrize("run_id", ["", "..", "a/b", "/etc", "a..b", "A", "-a", ".a", "a\n", "a" * 129, "a b", "a\x00"])
def test_what_is_no_id_is_refused(run_id):
    with pytest.raises(ValueError, match="is not a run id"):
        check_run_id(run_id)


@pytest.mark.parametrize("run_id", [None, 5, b"a", Path("/tmp"), float("nan")])
def test_what_is_no_text_is_no_id(run_id):
    with pytest.raises(ValueError, match="is not a run id"):
        check_run_id(run_id)


def test_home_is_the_environments_or_in_the_users_home(monkeypatch, tmp_path):
    assert home() == tmp_path / "llf-home"
    monkeypatch.setenv("LLF_HOME", "~/somewhere")
    assert home() == Path.home() / "somewhere"
    monkeypatch.delenv("LLF_HOME")
    assert home() == Path.home() / ".llf"


def test_a_home_of_nobody_is_told(monkeypatch):
    monkeypatch.setenv("LLF_HOME", "~nobody-of-this-name/llf")
    with pytest.raises(HomeError, match=r"The home folder in ~nobody-of-this-name/llf is unknown\. Set LLF_HOME to"):
        home()
    assert run_ids() == ()


def test_a_relative_home_below_a_removed_folder_is_told(monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.setenv("LLF_HOME", "here")
    (tmp_path / "gone").rmdir()
    with pytest.raises(HomeError, match="here is relative, and the working directory was removed"):
        home()


def test_a_wrong_mode_keeps_nobody_from_reading(folder, monkeypatch):
    monkeypatch.setenv("LLF_HOME_MODE", "rwx")
    assert read_status(folder).state == "created"
    with pytest.raises(ModeError, match="LLF_HOME_MODE is 'rwx'"):
        create_run("model_name_or_path: m\n", "new", folder.home)
    assert run_ids(folder.home) == (folder.id,)


def test_a_new_run_is_whole(folder):
    assert re.fullmatch(r"\d{8}-\d{6}-a-run", folder.id)
    assert RUN_ID.fullmatch(folder.id)
    assert folder.path.parent == home() / "runs"
    assert folder.home == home()
    status = read_status(folder)
    assert (status.format, status.state, status.attempt, status.step, status.pid) == (1, "created", 1, 0, None)
    assert read_meta(folder) == {"revision": 1, "name": "a run", "tags": [], "note": ""}
    (event,) = [json.loads(line) for line in folder.events.read_text().splitlines()]
    assert (event["v"], event["type"], event["name"], event["attempt"]) == (1, "created", "a run", 1)
    assert folder.control.is_dir()
    assert folder.config.read_text().startswith("model_name_or_path: tiny")
    assert [path.name for path in folder.path.parent.iterdir()] == [folder.id]


def test_names_of_the_files():
    folder = RunFolder(Path("/x/runs/a"))
    assert {name: getattr(folder, name).name for name in (
        "config", "resolved", "env", "status", "metrics", "events", "samples", "log", "data", "code", "control", "meta",
        "checkpoints", "output",
    )} == {
        "config": "config.yaml", "resolved": "resolved.yaml", "env": "env.json", "status": "status.json",
        "metrics": "metrics.jsonl", "events": "events.jsonl", "samples": "samples.jsonl", "log": "log.txt",
        "data": "data", "code": "code", "control": "control", "meta": "meta.json", "checkpoints": "checkpoints",
        "output": "output",
    }  # fmt: skip


def make(number):
    return create_run(f"n: {number}\n", "same").id


def test_processes_that_start_at_once_never_share_a_folder():
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        ids = pool.map(make, range(24), chunksize=1)
    assert len(set(ids)) == 24
    configs = {open_run(run_id).config.read_text() for run_id in ids}
    assert configs == {f"n: {number}\n" for number in range(24)}


def test_open_run_wants_a_run_that_is_there(folder):
    assert open_run(folder.id) == folder
    with pytest.raises(FileNotFoundError, match="No run 20000101-000000-none"):
        open_run("20000101-000000-none")
    with pytest.raises(ValueError, match="is not a run id"):
        open_run("../" + folder.id)


def test_a_folder_that_can_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llf_core.runs.creation.append", full)
    with pytest.raises(OSError, match=r"Runs cannot start\. The disk is full: .* free of "):
        create_run("a: 1\n", "x", tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_is_listed_can_be_opened(folder):
    (folder.path.parent / "a..b").mkdir()
    assert run_ids() == (folder.id,)
    assert [row.id for row in list_runs().rows if row.state == "broken"] == ["a..b"]
