"""A data file of the reader's computer: where it goes, what is said of it, and which ones are not taken."""

import errno
import gzip
import json
import re
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llf_core.data import data_file, file_readers, precheck
from llf_widgets.forms import uploads
from llf_widgets.forms.uploads import Upload, UploadError

ROWS = "".join(json.dumps({"question": f"{n}?", "answer": f"{n}!"}) + "\n" for n in range(40))


def upload(folder, name, data, piece=100):
    one = Upload(name, folder)
    data = data.encode() if isinstance(data, str) else data
    for start in range(0, len(data), piece):
        one.append(data[start : start + piece])
    return one.finish()


def test_file_lies_in_the_notebooks_folder_byte_by_byte(tmp_path):
    done = upload(tmp_path, "mine.jsonl", ROWS)
    assert (done.name, done.message) == ("mine.jsonl", "Saved as `mine.jsonl` in the folder of the notebook: 40 rows.")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]
    assert (tmp_path / "mine.jsonl").read_text() == ROWS


def test_another_file_of_the_name_stays(tmp_path):
    upload(tmp_path, "mine.csv", "q,a\n1,2\n")
    assert upload(tmp_path, "mine.csv", "q,a\n1,3\n").name == "mine-2.csv"
    assert upload(tmp_path, "mine.csv", "q,a\n1,2\n").name == "mine.csv"  # the same bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine-2.csv", "mine.csv"]


def test_broken_lines_are_counted_and_named(tmp_path):
    lines = ROWS.splitlines()
    lines[3], lines[7], lines[9], lines[11] = "{", "[1]", "nothing", '{"a": 1'
    told = upload(tmp_path, "three.jsonl", "\n".join(lines)).message
    assert "36 rows. 4 cannot be read and are skipped (line 4: " in told
    assert "line 8: a list, expected an object; " in told
    assert told.endswith("; 1 more).")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (
            "photo.png",
            b"\x89PNG",
            "`photo.png` was not uploaded: it is not a data file. Expected one of .json, .jsonl,",
        ),
        ("bad.json", '[{"a": 1},]', "`bad.json` was not uploaded: it is not valid JSON"),
        ("bad.jsonl", "not a row\n", "`bad.jsonl` was not uploaded: it has no rows (line 1: Expecting value"),
        ("empty.csv", "", "`empty.csv` was not uploaded: it has no rows."),
        ("bad.parquet", b"PAR1 no", "`bad.parquet` was not uploaded: it is not a valid Parquet file"),
        ("bad.jsonl.gz", b"no gzip", "`bad.jsonl.gz` was not uploaded: it cannot be unpacked"),
        ("latin.csv", "q,a\nwie heißt du,ö\n".encode("latin-1"), "`latin.csv` was not uploaded: it is not UTF-8"),
    ],
)
def test_bad_file_is_told_in_a_sentence_and_leaves_nothing(tmp_path, name, data, said):
    with pytest.raises(UploadError) as caught:
        upload(tmp_path, name, data)
    assert str(caught.value).startswith(said)
    assert ".llf-upload" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_name_is_never_a_path(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    assert upload(folder, "../../evil.jsonl", ROWS).name == "evil.jsonl"
    assert upload(folder, "C:\\data\\other.jsonl", ROWS).name == "other.jsonl"
    assert sorted(path.name for path in folder.iterdir()) == ["evil.jsonl", "other.jsonl"]


def test_compressed_text_keeps_both_suffixes(tmp_path):
    upload(tmp_path, "a.jsonl.gz", gzip.compress(ROWS.encode(), mtime=0))
    assert upload(tmp_path, "a.jsonl.gz", gzip.compress(ROWS.encode() * 2, mtime=0)).name == "a-2.jsonl.gz"


def test_a_removed_working_directory_is_told(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UploadError, match="it cannot be written"):
        Upload("rows.jsonl")


def test_home_takes_it_where_the_notebooks_folder_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))
    done = upload(tmp_path / "gone", "mine.jsonl", ROWS)
    assert done.name == str(tmp_path / "home" / "uploads" / "mine.jsonl")
    assert f"in `{tmp_path / 'home' / 'uploads'}`" in done.message


@pytest.mark.parametrize("stem", ["a\0b", "a\nb", "x" * 300, "é" * 200, "\ud800", "~x"])
def test_a_name_that_no_disk_takes_is_made_one(tmp_path, stem):
    for copies in (1, 2):
        done = upload(tmp_path, f"{stem}.jsonl", ROWS * copies)
        assert (tmp_path / done.name).read_text() == ROWS * copies
        assert done.name.isprintable()
        assert not done.name.startswith("~")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_that_leads_nowhere_stays(tmp_path):
    (tmp_path / "mine.jsonl").symlink_to("nowhere")
    assert upload(tmp_path, "mine.jsonl", ROWS).name == "mine-2.jsonl"
    assert (tmp_path / "mine.jsonl").is_symlink()


def packed(line, times):
    """`times` lines in a few bytes."""
    return gzip.compress(line * times, mtime=0)


@pytest.fixture
def short(monkeypatch):
    """Limits that a test can go beyond."""
    monkeypatch.setattr(uploads, "MAX_COUNTED_BYTES", 100_000)
    monkeypatch.setattr(uploads, "MAX_JSON_BYTES", 200_000)
    monkeypatch.setattr(precheck, "MAX_READ_BYTES", 100_000)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (
            "line.jsonl.gz",
            packed(b'{"a": "' + b"x" * 10**6 + b'"}\n', 1),
            "its first row is larger than 0 MB unpacked.",
        ),
        (
            "whole.json.gz",
            packed(b'[{"a": 1}' + b" " * 10**6 + b"]", 1),
            "it is larger than 0 MB unpacked, and a JSON file is loaded into memory as a whole.",
        ),
        ("line.csv.gz", packed(b"q,a\n1," + b"x" * 10**6, 1), "its first row is larger than 0 MB unpacked."),
    ],
)
def test_a_file_that_unpacks_to_much_is_refused_in_a_sentence(tmp_path, name, data, said):
    with pytest.raises(UploadError, match=said):
        upload(tmp_path, name, data, piece=len(data))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("short")
def test_of_a_long_file_only_the_beginning_is_read(tmp_path, monkeypatch):
    read = []
    opened = data_file.open_unpacked
    monkeypatch.setattr(
        data_file, "open_unpacked", lambda path: Heard(opened(path), read) if isinstance(path, Path) else opened(path)
    )
    line = b'{"question": "?", "answer": "!"}\n'
    told = upload(tmp_path, "rows.jsonl.gz", packed(line, 100_000), piece=10**6).message
    found = re.search(r": more than ([\d,]+) rows\.$", told)
    assert found is not None
    assert 1_000 < int(found[1].replace(",", "")) <= 100_000 // len(line)
    assert sum(read) < 200_000
    file = tmp_path / "line.jsonl.gz"
    file.write_bytes(packed(b'{"a": "' + b"x" * 10**6 + b'"}\n', 1))
    assert precheck._entries(file, 0, 1) == ([], False)
    assert sum(read) < 400_000


class Heard:
    """A file that tells how much was read of it."""

    def __init__(self, file, read):
        self.file, self.message = file, read

    def read(self, size):
        data = self.file.read(size)
        self.message.append(len(data))
        return data

    def close(self):
        self.file.close()


@pytest.mark.parametrize("name", ["many.parquet", "many.arrow"])
def test_a_table_tells_its_rows_without_reading_them(tmp_path, monkeypatch, name):
    table, file = pa.table({"q": ["?"] * 50_000, "a": ["!"] * 50_000}), tmp_path / "made"
    if name.endswith("parquet"):
        pq.write_table(table, file)
    else:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    made = []
    monkeypatch.setattr(file_readers, "without_nulls", lambda value: made.append(1) or value)
    (tmp_path / "here").mkdir()
    done = upload(tmp_path / "here", name, file.read_bytes(), piece=10**6)
    assert done.message.endswith(": 50,000 rows.")
    assert len(made) <= 2 * uploads.SAMPLE_ROWS


def test_uploads_of_one_name_that_end_together_keep_all_bytes(tmp_path, monkeypatch):
    gate = threading.Barrier(8)
    monkeypatch.setattr(Upload, "_rows", lambda _: f"{gate.wait(120)}")
    for round_ in range(5):
        texts = [f"q,a\n{round_},{n}\n" for n in range(8)]
        threads = [threading.Thread(target=upload, args=(tmp_path, "mine.csv", text)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {path.read_text() for path in tmp_path.iterdir()} >= set(texts)
    assert len(list(tmp_path.iterdir())) == 40


def test_uploads_that_never_end_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    receiver = uploads.UploadReceiver(lambda _: None, lambda *_: None)
    first = {"id": "1", "key": "dataset", "name": "a.jsonl", "total": 100, "offset": 0}
    receiver.receive(first, [b"x"])
    receiver.receive(first, [b"y"])
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"y"]
    receiver.close()
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses_the_last_step_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "replace", refuse)
    sent, ended = [], []
    receiver = uploads.UploadReceiver(sent.append, lambda *end: ended.append(end))
    content = {"id": 1, "key": "dataset", "name": "rows.jsonl", "total": len(ROWS), "offset": 0}
    receiver.receive(content, [ROWS.encode()])
    ((key, message, name),) = ended
    assert (key, name, message.level) == ("dataset", "", "warning")
    assert message.text == "`rows.jsonl` was not uploaded: it cannot be saved (No space left on device)."
    assert sent == [{"type": "upload", "id": "1", "received": len(ROWS), "done": True}]
    assert list(tmp_path.iterdir()) == []
