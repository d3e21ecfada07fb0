"""What stands in a file's place: a sentence that names it, at once, whatever it is."""

import errno
import os
import socket
from pathlib import Path

import pytest

from llf_core.untrusted import (
    UnreadableError,
    create_file,
    is_folder,
    list_folder,
    read_bytes,
    read_end,
    read_object,
    read_object_or_empty,
    read_text,
    real_path,
)
from tests.processes import open_descriptors


def make_socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most some 100 bytes
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def make_huge(path):
    with path.open("wb") as file:
        file.truncate(6 << 30)  # sparse: it takes no room


ODD = {
    "pipe": (os.mkfifo, "is a named pipe. Expected a regular file"),
    "socket": (make_socket, "is a socket. Expected a regular file"),
    "folder": (Path.mkdir, "is a folder. Expected a regular file"),
    "link out": (lambda path: path.symlink_to("/etc/hostname"), "is a link. Expected a regular file"),
    "link in": (lambda path: path.symlink_to("beside"), "is a link. Expected a regular file"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a link. Expected a regular file"),
    "loop": (lambda path: path.symlink_to(path.name), "is a link. Expected a regular file"),
    "dangling": (lambda path: path.symlink_to("nothing"), "is a link. Expected a regular file"),
    "huge": (make_huge, "has 6,442,450,944 bytes. Expected at most 1,048,576"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_sentences(tmp_path, kind):
    (tmp_path / "beside").write_text("{}")
    make, said = ODD[kind]
    make(tmp_path / "status.json")
    with pytest.raises(UnreadableError) as caught:
        read_bytes(tmp_path / "status.json")
    assert str(caught.value).startswith(f"status.json {said}")
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.name == "status.json"
    assert read_object_or_empty(tmp_path / "status.json") == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_a_sentence(tmp_path):
    try:
        os.mknod(tmp_path / "zero", 0o666 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container makes no devices")
    with pytest.raises(UnreadableError, match=r"zero (is a device|cannot be opened)"):
        read_bytes(tmp_path / "zero")


def test_every_folder_below_the_root_is_entered_and_none_is_a_link(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (run / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (elsewhere / "checkpoint-1").mkdir(parents=True)
    for place in (run / "checkpoints" / "checkpoint-1", elsewhere / "checkpoint-1"):
        (place / "complete.json").write_text('{"step": 1}')
    path = run / "checkpoints" / "checkpoint-1" / "complete.json"
    assert read_object(path, root=run) == {"step": 1}
    assert list_folder(run / "checkpoints", run) == ["checkpoint-1"]
    assert set(list_folder(run, run)) == {"checkpoints"}
    (run / "checkpoints").rename(run / "kept")
    (run / "checkpoints").symlink_to(elsewhere)
    with pytest.raises(UnreadableError, match=r"^checkpoints is a link\. Expected a folder"):
        read_object(path, root=run)
    with pytest.raises(UnreadableError, match=r"^checkpoints is a link\. Expected a folder"):
        list_folder(run / "checkpoints", run)
    assert not is_folder(run / "checkpoints", run)
    assert is_folder(run / "kept", run)
    assert not is_folder(run / "none", run)
    with pytest.raises(FileNotFoundError):
        read_bytes(run / "none" / "file", root=run)
    with pytest.raises(FileNotFoundError):
        list_folder(run / "none", run)


def test_no_path_leads_out_of_its_root(tmp_path):
    run = tmp_path / "run"
    (run / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    for path in (run / ".." / "secret", run / "sub" / ".." / ".." / "secret"):
        with pytest.raises(UnreadableError, match=r"secret leads out by `\.\.`"):
            read_bytes(path, root=run)
    with pytest.raises(ValueError, match="subpath"):
        read_bytes(tmp_path / "secret", root=run)
    for path in (run / "..", run / "sub" / ".." / ".."):
        with pytest.raises(UnreadableError, match="leads out"):
            list_folder(path, run)
        assert not is_folder(path, run)
        assert is_folder(path)
        assert set(list_folder(path)) == {"run", "secret"}


def test_a_root_that_is_no_folder_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    found = {name: is_folder(tmp_path / name, tmp_path / name) for name in ("none", "file", "link", ".")}
    assert found == {"none": False, "file": False, "link": True, ".": True}
    with pytest.raises(FileNotFoundError) as caught:
        list_folder(tmp_path / "none", tmp_path / "none")
    assert not isinstance(caught.value, UnreadableError)


def test_a_file_in_the_place_of_a_folder_is_a_sentence(tmp_path):
    (tmp_path / "control").write_text("")
    with pytest.raises(UnreadableError, match=r"^control is a file\. Expected a folder"):
        list_folder(tmp_path / "control", tmp_path)
    with pytest.raises(UnreadableError, match="Not a directory"):
        read_bytes(tmp_path / "control" / "request.json")


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "events.jsonl").symlink_to("mine")
    with pytest.raises(UnreadableError, match="is a link"):
        create_file(tmp_path / "events.jsonl", os.O_WRONLY | os.O_APPEND)
    assert (tmp_path / "mine").read_text() == "precious"


def test_no_descriptor_is_left(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_text("x")
    os.mkfifo(tmp_path / "deep" / "pipe")
    before = open_descriptors()
    for name in ("file", "pipe", "none"):
        for act in (read_bytes, read_text, lambda path, root: read_end(path, 3, root=root)):
            try:
                act(tmp_path / "deep" / name, root=tmp_path)
            except OSError:
                continue
    is_folder(tmp_path / "deep", tmp_path)
    assert open_descriptors() - before == set()


def test_text_is_utf_8_and_the_end_of_a_file_is_bounded(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(UnreadableError, match=r"config.yaml is not text in UTF-8: the byte at 3 is 0xff"):
        read_text(path)
    assert read_end(path, 2) == b" \xff"
    assert read_end(path, 100) == b"a: \xff"


def test_a_loop_of_links_is_no_error_of_a_real_path(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(tmp_path)
    assert real_path(tmp_path / "loop") == tmp_path / "loop"
    assert real_path(tmp_path / "link" / "link" / "a") == tmp_path / "a"


@pytest.mark.parametrize("read", [read_object_or_empty, read_text])
def test_too_many_open_files_say_nothing_of_the_file(tmp_path, monkeypatch, read):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.json").write_text("{}")

    def full(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", full)
    for root in (None, tmp_path):
        with pytest.raises(OSError, match="Too many open files") as refused:
            read(tmp_path / "inner" / "a.json", root=root)
        assert not isinstance(refused.value, UnreadableError)
