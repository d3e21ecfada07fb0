"""A data file of the reader's computer: where it goes, what is said of it, and which ones are not taken."""

import gzip
import json

import pytest

from llf_widgets.forms.uploads import Upload, UploadError

ROWS = "".join(json.dumps({"question": f"{n}?", "answer": f"{n}!"}) + "\n" for n in range(40))


def upload(folder, name, data, piece=100):
    one = Upload(name, folder)
    data = data.encode() if isinstance(data, str) else data
    for start in range(0, len(data), piece):
        one.add(data[start : start + piece])
    return one.finish()


def test_file_lies_in_the_notebooks_folder_byte_by_byte(tmp_path):
    done = upload(tmp_path, "mine.jsonl", ROWS)
    assert (done.name, done.told) == ("mine.jsonl", "Saved as `mine.jsonl` in the notebook's folder: 40 rows.")
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
    told = upload(tmp_path, "three.jsonl", "\n".join(lines)).told
    assert "36 rows. 4 cannot be read and are left out (line 4: " in told
    assert "line 8: a list, expected an object; " in told
    assert told.endswith("; 1 more).")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("photo.png", b"\x89PNG", "`photo.png` was not taken: it is not a data file. Expected one of .json, .jsonl,"),
        ("bad.json", '[{"a": 1},]', "`bad.json` was not taken: it is not valid JSON"),
        ("bad.jsonl", "not a row\n", "`bad.jsonl` was not taken: it holds no row (line 1: Expecting value"),
        ("empty.csv", "", "`empty.csv` was not taken: it holds no row."),
        ("bad.parquet", b"PAR1 no", "`bad.parquet` was not taken: it is not a valid Parquet file"),
        ("bad.jsonl.gz", b"no gzip", "`bad.jsonl.gz` was not taken: it cannot be unpacked"),
        ("latin.csv", "q,a\nwie heißt du,ö\n".encode("latin-1"), "`latin.csv` was not taken: it is not UTF-8"),
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


def test_home_takes_it_where_the_notebooks_folder_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))
    done = upload(tmp_path / "gone", "mine.jsonl", ROWS)
    assert done.name == str(tmp_path / "home" / "uploads" / "mine.jsonl")
    assert f"in `{tmp_path / 'home' / 'uploads'}`" in done.told


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
