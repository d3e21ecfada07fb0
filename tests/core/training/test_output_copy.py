"""`output_dir`: a result replaces nothing but an earlier result of ours, whole, and a person's files stay."""

import json
import os
import shutil
import subprocess

import pytest
from safetensors.torch import load_file

from llf_core.config import ConfigError, RunConfig, validate
from llf_core.config.name_checks import check
from llf_core.config.name_checks.output_folder import MARKER, foreign_entry, recorded
from llf_core.runs import RunReader, archive, create_run, read_status, status
from llf_core.training import output_copy, save_run_result
from llf_core.training.output_copy import OutputCopyError, add_to_copy, check_output_dir, copy_output
from llf_core.training.session import run_attempt
from tests.processes import killed_at_each_step

FILES = {"adapter_model.safetensors": b"\x00weights", "README.md": b"card", "more/vocab.txt": b"a b"}


def tree(folder):
    """Every file below a folder with its content, and where links lead."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def target(tmp_path):
    return tmp_path / "saves" / "mine"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with a result that no model is needed for."""
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))
    made = create_run("dataset: llf_demo\n", "small")
    write(made.output, FILES)
    return made


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def config_of(target, **changes):
    return RunConfig.load({"dataset": "llf_demo", "output_dir": str(target)} | changes)


def refused(target, **changes):
    """The sentence that `launch` and `llf validate` refuse a folder with."""
    report = check(validate({"dataset": "llf_demo", "output_dir": str(target)} | changes), seconds=0)
    (problem,) = [one for one in report.problems if one.key == "output_dir"]
    assert (problem.severity, report.ok) == ("error", False)
    assert problem.message.startswith(f"output_dir is {target}. ")
    assert all(validate({"dataset": "llf_demo"} | dict(fix.changes)).ok for fix in problem.fixes)
    return problem.message


def allowed(target, **changes):
    report = check(validate({"dataset": "llf_demo", "output_dir": str(target)} | changes), seconds=0)
    return not [one for one in report.problems if one.key == "output_dir"]


# -- a result of ours ----------------------------------------------------------------------------------------------
def test_a_result_is_copied_with_its_hashes_and_replaced_by_the_next(run, target):
    config = config_of(target)
    assert allowed(target)
    copy_output(config, run)
    assert tree(target) == {name: tree(run.output).get(name, tree(target)[name]) for name in {*FILES, MARKER}}
    assert recorded(target).keys() == FILES.keys()
    assert not foreign_entry(target, thorough=True)
    assert allowed(target)
    write(run.output, {"README.md": b"another card"})
    (run.output / "more" / "vocab.txt").unlink()
    (run.output / "more").rmdir()
    copy_output(config, run)
    assert tree(target).keys() == {"adapter_model.safetensors", "README.md", MARKER}
    assert (target / "README.md").read_bytes() == b"another card"
    assert [one.name for one in target.parent.iterdir()] == ["mine"]  # nothing is left beside it


def test_an_empty_folder_is_fine(run, target):
    target.mkdir(parents=True)
    assert allowed(target)
    copy_output(config_of(target), run)
    assert tree(target).keys() == {*FILES, MARKER}


def test_a_result_that_was_carried_elsewhere_is_still_known(run, target, tmp_path):
    copy_output(config_of(target), run)
    moved = shutil.copytree(target, tmp_path / "moved", copy_function=shutil.copy)  # with other times
    assert allowed(moved)


# -- a person's files ----------------------------------------------------------------------------------------------
def add_file(target):
    (target / "notes.txt").write_text("mine")
    return "notes.txt"


def add_hidden(target):
    (target / ".env").write_text("mine")
    return ".env"


def add_folder(target):
    (target / "figures").mkdir()
    return "folder figures"


def add_deep(target):
    write(target, {"more/deep/own.txt": b"mine"})
    return "more/deep"


def add_link(target):
    (target / "link").symlink_to(target.parent)
    return "link link"


def add_loop(target):
    (target / "loop").symlink_to("loop")
    return "link loop"


def add_pipe(target):
    os.mkfifo(target / "pipe")
    return "pipe"


def change(target):
    (target / "README.md").write_text("my own words about it")
    return "README.md was modified"


def change_alike(target):
    (target / "README.md").write_text("CARD")
    return "README.md was modified"


def link_in_its_place(target):
    (target / "README.md").unlink()
    (target / "README.md").symlink_to(target / "adapter_model.safetensors")
    return "link README.md"


def no_marker(target):
    (target / MARKER).unlink()
    return "which LLF did not write"


def other_marker(target):
    (target / MARKER).write_text(json.dumps({"format": 1, "files": {"../../x": {}, "README.md": 3}}))
    return "which LLF did not write"


def folder_as_marker(target):
    (target / MARKER).unlink()
    (target / MARKER).mkdir()
    assert recorded(target) == {}
    return "which LLF did not write"


def deep_marker(target):
    (target / MARKER).write_text("[" * 100_000)
    return "which LLF did not write"


STRANGERS = [
    add_file, add_hidden, add_folder, add_deep, add_link, add_loop, add_pipe, change, change_alike, link_in_its_place,
    no_marker, other_marker, folder_as_marker, deep_marker,
]  # fmt: skip


@pytest.mark.parametrize("spoil", STRANGERS)
def test_what_is_not_ours_is_refused_before_the_start_and_stays_at_the_end(run, target, spoil):
    config = config_of(target)
    copy_output(config, run)
    words = spoil(target)
    before = None if spoil is add_pipe else tree(target)
    assert words in refused(target)
    with pytest.raises(ConfigError, match="output_dir is "):
        check_output_dir(config, run)
    with pytest.raises(OutputCopyError) as told:
        copy_output(config, run)
    assert words in str(told.value)
    assert str(run.output) in str(told.value)
    assert before is None or tree(target) == before
    assert [one.name for one in target.parent.iterdir()] == ["mine"]


def test_a_file_that_appears_while_the_result_is_copied_stays(run, target, monkeypatch):
    config = config_of(target)
    copy_output(config, run)
    original = output_copy._copy

    def copy(*arguments):
        original(*arguments)
        add_file(target)

    monkeypatch.setattr(output_copy, "_copy", copy)
    with pytest.raises(OutputCopyError, match=r"notes\.txt"):
        copy_output(config, run)
    assert (target / "notes.txt").read_text() == "mine"
    assert tree(run.output) == FILES
    assert [one.name for one in target.parent.iterdir()] == ["mine"]


def test_an_older_previous_is_left_alone(run, target):
    config = config_of(target)
    copy_output(config, run)
    write(target.with_name("mine.previous"), {"own.txt": b"mine"})
    copy_output(config, run)
    assert tree(target.with_name("mine.previous")) == {"own.txt": b"mine"}
    assert sorted(one.name for one in target.parent.iterdir()) == ["mine", "mine.previous"]


@pytest.mark.parametrize("point", ["_copy", "replace_folder", "sync_folder"])
def test_a_disk_that_fails_leaves_the_earlier_result(run, target, monkeypatch, point):
    config = config_of(target)
    copy_output(config, run)
    before = tree(target)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output_copy, point, full)
    with pytest.raises(OutputCopyError, match=r"could not be copied to .* The disk at .* was full"):
        copy_output(config, run)
    assert tree(target) == before
    assert [one.name for one in target.parent.iterdir()] == ["mine"]


def test_a_disk_that_takes_no_more_files_leaves_the_copy_replaceable(run, target, monkeypatch):
    config = config_of(target)
    copy_output(config, run)
    before = tree(target)
    write(run.path, {"one.json": b"1", "two.json": b"2"})
    whole = shutil.copy2

    def full(source, to):
        whole(source, to)
        if to.name == ".two.json":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    files = [run.path / "one.json", run.path / "two.json"]
    with pytest.raises(OutputCopyError, match=r"one\.json and two\.json could not be copied to .* No space left"):
        add_to_copy(config, run, files)
    assert tree(target) == before
    monkeypatch.setattr(shutil, "copy2", whole)
    add_to_copy(config, run, files)
    assert (target / "two.json").read_bytes() == b"2"
    copy_output(config, run)
    assert tree(target).keys() == before.keys()


@pytest.mark.parametrize("exchange", [True, False])
def test_a_copy_that_is_killed_while_it_replaces_another_leaves_a_whole_result(run, target, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(archive, "_exchange", lambda *_: False)
    copy_output(config_of(target), run)
    before = target.with_name("before")
    shutil.copytree(target, before)
    write(run.output, {"README.md": b"another card"})
    for finished in killed_at_each_step(lambda: copy_output(config_of(target), run)):
        found = [one for one in target.parent.glob("mine*") if recorded(one) and not foreign_entry(one, thorough=True)]
        whole = {one.name: len(tree(one)) for one in found}
        assert len(FILES) + 1 in whole.values()
        assert not exchange or whole["mine"] == len(FILES) + 1
        if finished:
            assert (target / "README.md").read_bytes() == b"another card"
            assert {one.name for one in target.parent.glob("mine*")} == {"mine"}
        for one in [*target.parent.glob("mine*"), *target.parent.glob(".*")]:
            shutil.rmtree(one)
        shutil.copytree(before, target)


def test_a_link_is_not_followed(run, target, tmp_path):
    (tmp_path / "real").mkdir()
    target.parent.mkdir()
    target.symlink_to(tmp_path / "real")
    assert f"It is a link to {tmp_path / 'real'}" in refused(target)
    with pytest.raises(OutputCopyError):
        copy_output(config_of(target), run)
    assert tree(tmp_path / "real") == {}


def test_folders_that_are_never_replaced(run, tmp_path, monkeypatch, tiny_model_dir):
    base = tmp_path / "models" / "base"
    shutil.copytree(tiny_model_dir, base)
    before = tree(base)
    assert "what model_name_or_path names" in refused(base, model_name_or_path=str(base))
    assert "It contains what model_name_or_path names" in refused(base.parent, model_name_or_path=str(base))
    (tmp_path / "link").symlink_to(base)
    assert "what model_name_or_path names" in refused(tmp_path / "link", model_name_or_path=str(base))
    home, project = tmp_path / "person", tmp_path / "person" / "project"
    project.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    assert "your home directory" in refused(home)
    monkeypatch.chdir(project)
    assert "the working directory" in refused(project)
    assert refused("/")
    assert tree(base) == before


def test_a_result_that_the_run_reads_is_not_replaced(run, target):
    copy_output(config_of(target), run)
    assert "what adapter_name_or_path names" in refused(target, adapter_name_or_path=str(target))


@pytest.mark.parametrize("name", ["runs/mine", "cache/mine", "uploads", "trusted.json", ".", ".."])
def test_our_own_folders_receive_no_result(run, name):
    config = config_of(run.home / name)
    with pytest.raises(ConfigError, match="LLF stores its own files there"):
        check_output_dir(config, run)
    # Before anything starts, too.
    report = check(validate(config), home=run.home, starting=True, seconds=0)
    assert "LLF stores its own files there" in " ".join(one.message for one in report.problems)


def test_a_name_that_leaves_no_room_for_the_earlier_result(run, tmp_path):
    assert "Its name has 250 bytes" in refused(tmp_path / ("n" * 250))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_takes_no_result(run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "llf-test", disk], check=True)
    try:
        target = disk / "result"
        (run.output / "weights").write_bytes(bytes(20_000))
        with pytest.raises(OutputCopyError, match=rf"does not fit into {disk}: the disk has 8\.19 kB free of 8\.19 kB"):
            copy_output(config_of(target), run)
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert f"The disk of {disk} is read-only." in refused(target)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_file_in_its_place(run, target):
    target.parent.mkdir()
    target.write_text("mine")
    assert "It is not a folder." in refused(target)


# -- a whole run ---------------------------------------------------------------------------------------------------
def test_a_stranger_that_appears_during_the_run_stays_and_the_run_finishes(trained, make_run, tmp_path, monkeypatch):
    target = tmp_path / "result"
    folder, code = trained(max_steps=1, output_dir=str(target))
    assert (code, read_status(folder).state, read_status(folder).reason) == (0, "finished", None)
    assert load_file(target / "adapter_model.safetensors").keys()
    second = make_run(max_steps=1, output_dir=str(target))
    original = save_run_result.save_output

    def save(*arguments):
        original(*arguments)
        (target / "notes.txt").write_text("mine")

    monkeypatch.setattr(save_run_result, "save_output", save)
    assert run_attempt(second, 1) == 0
    final = read_status(second)
    assert final.state == "finished"
    assert "notes.txt" in final.reason
    (warning,) = [one for one in RunReader(second).events() if one["type"] == "warning" and one["key"] == "output_dir"]
    assert warning["message"] == final.reason
    assert str(second.output) in final.reason
    assert (target / "notes.txt").read_text() == "mine"
    assert (second.output / "adapter_model.safetensors").is_file()
    # A run of its own is refused before its first step; one that goes on is warned.
    third = make_run(max_steps=1, output_dir=str(target))
    assert run_attempt(third, 1) == 2
    assert "notes.txt" in read_status(third).reason
    status.begin_attempt(third, 2)
    assert run_attempt(third, 2) == 0
    assert read_status(third).state == "finished"
