"""A run as a zip file: what comes out at the other end, and which files are refused."""

import copy
import json
import os
import stat
import zipfile
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import pytest

from llf_core.redaction.file_modes import ModeError
from llf_core.runs import Checkpoints, RunFolder, archive, create_run, exports, read_status, status
from llf_core.runs.archive import FILES, FOLDERS, ArchiveError, export_run, import_run
from llf_core.runs.config_file import run_config
from llf_core.runs.folder import run_ids
from llf_core.runs.trust import is_signed, sign_run


@pytest.fixture
def run(tmp_path):
    """A finished run with a result, a checkpoint and what is not part of the zip."""
    folder = create_run("model_name_or_path: owner/model\ndataset: llf_demo\nfinetuning_type: lora\n", "tuned")
    for name in ("output/adapter_config.json", "checkpoints/checkpoint-2/weights", "cache/data", "code/rewards.py",
                 "predictions/.predict.lock", "notes.txt"):  # fmt: skip
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder.path / "output" / "link").symlink_to("/etc/passwd")
    status.update(folder, state="finished", step=4, total=4)
    sign_run(folder)
    return folder


def names(folder):
    return {one.relative_to(folder.path).as_posix() for one in folder.path.rglob("*") if one.is_file()}


def test_a_run_opens_elsewhere(run, tmp_path):
    file = export_run(run.id, tmp_path / "run.zip")
    other = tmp_path / "other"
    found = import_run(file, home=other)
    assert found.id == run.id
    left_out = {"output/link", ".reserve", "cache/data", "status.lock", "predictions/.predict.lock", "notes.txt"}
    assert names(found) == names(run) - left_out
    assert read_status(found).step == 4
    assert run_config(found) == run_config(run)
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o700
    assert is_signed(run)
    assert not is_signed(found)
    assert import_run(file, home=other).id == f"{run.id}-2"
    small = export_run(run.id, tmp_path / "small.zip", checkpoints=False)
    assert not [one for one in zipfile.ZipFile(small).namelist() if "checkpoints" in one]
    with pytest.raises(ArchiveError, match=r"run\.zip exists\. Expected a new file"):
        export_run(run.id, file)


def test_a_run_that_has_not_ended_is_refused(tmp_path):
    folder = create_run("dataset: llf_demo\n", "new")
    with pytest.raises(ArchiveError, match=rf"{folder.id} is created\. Expected a run that has ended"):
        export_run(folder.id, tmp_path / "run.zip")
    assert not (tmp_path / "run.zip").exists()


def test_a_run_whose_zip_nobody_could_open_is_refused(run, tmp_path):
    with pytest.raises(ArchiveError, match="is a folder"):
        export_run(run.id, tmp_path, overwrite=True)
    run.config.rename(tmp_path / "config.yaml")
    run.config.symlink_to(tmp_path / "config.yaml")
    with pytest.raises(ArchiveError, match=r"has no config\.yaml of its own"):
        export_run(run.id, tmp_path / "run.zip")
    assert not (tmp_path / "run.zip").exists()


def test_files_with_any_printable_name_open_elsewhere(run, tmp_path):
    for name in (b"of\xff.txt", rb"a\b.txt"):
        for folder in (run.output, run.checkpoints / "checkpoint-2"):
            Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("x")
    Checkpoints(run).finish(2)
    (run.output / "a\nb.txt").write_text("x")
    opened = import_run(export_run(run.id, tmp_path / "run.zip"), home=tmp_path / "other")
    assert {"output/of\\xff.txt", "output/a\\b.txt"} <= names(opened)
    assert "output/a\nb.txt" not in names(opened)
    assert Checkpoints(opened).list() == [2]


def test_a_zip_has_all_of_a_run_but_what_is_of_use_on_its_machine():
    paths = {value.func for value in vars(RunFolder).values() if isinstance(value, cached_property)}
    inside = {path(RunFolder(Path("run"))).name for path in paths}
    assert inside - FILES - FOLDERS == {".reserve", "queue.json", "status.lock", "control"}
    assert inside & (FILES | FOLDERS) | {exports.FILE, "exports"} == FILES | FOLDERS


def hostile(path, entries, *, links=()):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if name in links else stat.S_IFREG) | 0o644) << 16
            archive.writestr(info, text)


RUN = {"20261127-a/config.yaml": "", "20261127-a/status.json": json.dumps({})}
FOREIGN = (
    "../../evil", "code/../../evil", "code//x", "code/./x", "code/x/", "output", "code", "notes.txt", "cache/x",
    "control/1764003170500000000-12345678.json", "queue.json", "status.lock", ".reserve", "predictions/.predict.lock",
    "code/a\nb.py", "code/\x1b[2J", f"code/{'d/' * 2000}x", f"code/{'x' * 256}",
)  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "links", "said"),
    [
        ({"20261127-a/config.yaml": ""}, (), "it has no 20261127-a/status.json"),
        (RUN | {"20261127-a/output/link": "/etc"}, ("20261127-a/output/link",), "which a run does not have"),
        (RUN | {"other/file": ""}, (), "Expected one folder in it"),
        (RUN | {".": ""}, (), "Expected one folder in it"),
        ({"..hidden/config.yaml": "", "..hidden/status.json": ""}, (), "is no zip of a run"),
        *((RUN | {f"20261127-a/{name}": "{}"}, (), "which a run does not have") for name in FOREIGN),
    ],
)
def test_a_file_that_is_no_run_leaves_nothing(tmp_path, entries, links, said):
    path = tmp_path / "bad.zip"
    hostile(path, entries, links=links)
    with pytest.raises(ArchiveError, match=said):
        import_run(path, home=tmp_path / "other")
    assert not list((tmp_path / "other" / "runs").iterdir())


def test_a_truncated_zip_leaves_nothing(run, tmp_path):
    file = export_run(run.id, tmp_path / "run.zip")
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ArchiveError, match=r"run\.zip is not a readable zip file"):
        import_run(file, home=tmp_path / "other")
    assert not list((tmp_path / "other" / "runs").iterdir())


def test_a_zip_takes_no_more_of_the_disk_than_it_has(run, tmp_path):
    """One compressed, one whose central directory names the same bytes many times, one of empty files."""
    plain = export_run(run.id, tmp_path / "run.zip")
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as new:
        for one in old.infolist():
            new.writestr(one.filename, old.read(one))
    with pytest.raises(ArchiveError, match=r"packed\.zip has the compressed entry .* Expected a zip file as llf runs"):
        import_run(tmp_path / "packed.zip", home=tmp_path / "other")
    with zipfile.ZipFile(tmp_path / "overlap.zip", "w") as new:
        for name, text in RUN.items():
            new.writestr(name, text)
        new.writestr("20261127-a/data/0", bytes(1000))
        for index in range(1, 100):
            again = copy.copy(new.infolist()[2])
            again.filename = f"20261127-a/data/{index}"
            new.filelist.append(again)
    with pytest.raises(ArchiveError, match=r"overlap\.zip is damaged: its files overlap"):
        import_run(tmp_path / "overlap.zip", home=tmp_path / "other")
    assert not list((tmp_path / "other" / "runs").iterdir())


@pytest.mark.parametrize(("free", "fits"), [(4096 * 5 - 1, False), (4096 * 5 + 2, True)])
def test_empty_files_and_folders_take_room_too(tmp_path, monkeypatch, free, fits):
    """Three files of two bytes in all, in two folders."""
    hostile(tmp_path / "run.zip", RUN | {"20261127-a/code/x": ""})
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    if fits:
        import_run(tmp_path / "run.zip", home=tmp_path / "other")
        return
    with pytest.raises(ArchiveError, match=r"The run 20261127-a takes 20\.5 kB and the disk of .* has 20\.5 kB free"):
        import_run(tmp_path / "run.zip", home=tmp_path / "other")


def test_a_zip_with_a_name_that_is_no_text_is_refused(tmp_path):
    """The flag of UTF-8 is set, and the bytes are not: `zipfile` raises a Unicode error then."""
    file = tmp_path / "names.zip"
    hostile(file, RUN | {"20261127-a/code/\xe9": ""})
    file.write_bytes(file.read_bytes().replace("\xe9".encode(), b"\xff\xfe"))
    with pytest.raises(ArchiveError, match=r"names\.zip is not a readable zip file"):
        import_run(file, home=tmp_path / "other")


def test_a_zip_without_its_beginning_leaves_nothing(run, tmp_path):
    file = export_run(run.id, tmp_path / "run.zip")
    file.write_bytes(file.read_bytes()[10:])
    with pytest.raises(ArchiveError, match=r"run\.zip is damaged: its beginning is missing"):
        import_run(file, home=tmp_path / "other")
    assert not list((tmp_path / "other" / "runs").iterdir())


def test_a_mode_that_is_none_leaves_nothing(run, tmp_path, monkeypatch):
    file = export_run(run.id, tmp_path / "run.zip")
    monkeypatch.setenv("LLF_HOME_MODE", "private")
    with pytest.raises(ModeError, match="LLF_HOME_MODE is 'private'"):
        import_run(file, home=tmp_path / "other")
    assert not list((tmp_path / "other" / "runs").iterdir())


def test_an_error_of_whoever_watches_is_not_one_of_the_zip(run, tmp_path):
    def watch(done, total):
        raise RuntimeError("the window was closed")

    file = export_run(run.id, tmp_path / "run.zip")
    with pytest.raises(RuntimeError, match=r"^the window was closed$"):
        import_run(file, home=tmp_path / "other", progress=watch)
    assert not list((tmp_path / "other" / "runs").iterdir())


@pytest.mark.parametrize("others", [["x", "x"], ["x", "x/y"], ["x/y", "x"]])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_path_leave_nothing(tmp_path, others):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name in [*RUN, *(f"20261127-a/code/{other}" for other in others)]:
            archive.writestr(name, "")
    with pytest.raises(ArchiveError, match=r"bad\.zip is damaged: it has two files of one path"):
        import_run(tmp_path / "bad.zip", home=tmp_path / "other")
    assert not list((tmp_path / "other" / "runs").iterdir())


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / "run.zip")
    with pytest.raises(ArchiveError, match=r"run\.zip is not a regular file\. Expected a zip file of llf runs export"):
        import_run(tmp_path / "run.zip", home=tmp_path / "other")


def test_a_file_in_place_of_the_runs_is_told_as_at_a_start(run, tmp_path):
    file = export_run(run.id, tmp_path / "run.zip")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "runs").touch()
    with pytest.raises(NotADirectoryError, match="is not a folder, so runs cannot be saved in"):
        import_run(file, home=tmp_path / "other")


def test_of_the_longest_id_a_second_run_is_one_too(tmp_path):
    longest = "a" * 128
    hostile(tmp_path / "run.zip", {f"{longest}/config.yaml": "", f"{longest}/status.json": "{}"})
    found = [import_run(tmp_path / "run.zip", home=tmp_path / "other").id for _ in range(2)]
    assert found == [longest, f"{'a' * 126}-2"]
    assert run_ids(tmp_path / "other") == tuple(sorted(found))
