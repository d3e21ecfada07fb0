from __future__ import annotations

import errno
import io
import os
import threading
import tracemalloc
import zipfile

import pytest
from tornado.httpclient import HTTPClientError

from llf_core.runs import archive as run_archive
from llf_core.runs.archive import CHUNK, files_below, zip_chunks
from llf_core.untrusted import UnreadableError
from llf_widgets.server import results


@pytest.fixture
def finished(make_run):
    folder = make_run("demo", state="finished")
    (folder.output / "sub").mkdir(parents=True)
    (folder.output / "README.md").write_text("# card")
    (folder.output / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 10_000)
    (folder.output / "sub" / "empty").write_bytes(b"")
    return folder


async def test_output_comes_as_a_zip(jp_fetch, finished):
    response = await jp_fetch("llf", "api", "runs", finished.id, "output.zip")
    assert response.headers["Content-Type"] == "application/zip"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{finished.id}.zip"'
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        assert archive.testzip() is None
        names = ["README.md", "adapter_model.safetensors", "sub/empty"]
        assert archive.namelist() == [f"{finished.id}/{name}" for name in names]
        for name in names:
            assert archive.read(f"{finished.id}/{name}") == (finished.output / name).read_bytes()


async def test_links_are_not_followed(jp_fetch, finished, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "secret").write_text("secret")
    (finished.output / "file").symlink_to(tmp_path / "secret")
    (finished.output / "folder").symlink_to(tmp_path / "folder")
    response = await jp_fetch("llf", "api", "runs", finished.id, "output.zip")
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        assert len(archive.namelist()) == 3
        assert not [name for name in archive.namelist() if "secret" in name or name.endswith("file")]


async def test_a_linked_output_is_none(ask, make_run, tmp_path):
    folder = make_run(state="finished")
    (tmp_path / "secret").write_text("secret")
    folder.output.symlink_to(tmp_path)
    assert (await ask("runs", folder.id, "output.zip"))[0] == 409


async def test_a_run_without_output_says_so(ask, make_run):
    folder = make_run(state="running")
    said = {"message": "The run has no output yet. It is written when the run finishes."}
    assert await ask("runs", folder.id, "output.zip") == (409, said)


def test_a_large_output_needs_little_memory(tmp_path):
    with (tmp_path / "big").open("wb") as file:
        file.truncate(64 * CHUNK)
    tracemalloc.start()
    size = sum(map(len, zip_chunks(tmp_path, files_below(tmp_path), "run")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 64 * CHUNK
    assert peak < 8 * CHUNK


async def test_a_name_that_is_no_text_is_spelled(ask, jp_fetch, finished):
    (finished.output / os.fsdecode(b"\xff.txt")).write_text("x")
    response = await jp_fetch("llf", "api", "runs", finished.id, "output.zip")
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        assert archive.read(f"{finished.id}/\\xff.txt") == b"x"


async def test_a_file_that_nobody_may_read_is_a_sentence(ask, finished, monkeypatch):
    def refuse(path, root=None):
        raise UnreadableError(errno.EACCES, path.name, "cannot be opened: Permission denied.")

    monkeypatch.setattr(run_archive, "open_file", refuse)
    said = "Some files of the output cannot be read: README.md cannot be opened: Permission denied."
    assert await ask("runs", finished.id, "output.zip") == (409, {"message": said})


async def test_a_download_is_cut_where_the_run_is_deleted_meanwhile(ask, jp_fetch, finished, monkeypatch, caplog):
    def chunks(root, files, top):
        yield b"PK"
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(root / "README.md"))

    monkeypatch.setattr(results, "zip_chunks", chunks)
    with pytest.raises(HTTPClientError, match=r"closed|599"):
        await jp_fetch("llf", "api", "runs", finished.id, "output.zip")
    assert "Uncaught exception" not in caplog.text
    assert str(finished.path) not in caplog.text


async def test_a_download_is_cut_where_the_disk_hangs(ask, jp_fetch, finished, monkeypatch):
    def chunks(root, files, top):
        monkeypatch.setattr(results, "LONG_TIMEOUT", 0.2)  # from the next part on
        if not hangs_at_once:
            yield b"PK"
        assert go_on.wait(60)
        yield b"more"

    go_on = threading.Event()
    monkeypatch.setattr(results, "zip_chunks", chunks)
    try:
        hangs_at_once = False
        with pytest.raises(HTTPClientError, match=r"closed|599"):
            await jp_fetch("llf", "api", "runs", finished.id, "output.zip")
        hangs_at_once = True
        assert (await ask("runs", finished.id, "output.zip"))[0] == 503
    finally:
        go_on.set()


async def test_an_output_that_goes_while_it_is_listed_is_a_sentence(ask, finished, monkeypatch):
    def refuse(path, root=None):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(run_archive, "open_file", refuse)
    assert (await ask("runs", finished.id, "output.zip"))[0] == 404
