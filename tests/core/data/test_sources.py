"""Names of data sets: entries, files, hub ids, and what is said where there is none."""

import json
import os
import resource
import signal

import pytest

from llf_core.data.data_file import CloudFile, file_type
from llf_core.data.errors import DataError
from llf_core.data.load import open_source, read_source
from llf_core.data.records import BrokenLine, Record
from llf_core.data.sources import DEMO_FILE, Source, find_sources

ROW = {"instruction": "a", "output": "b"}


@pytest.fixture
def info(write, tmp_path):
    """Writes `dataset_info.json` with one entry `mine` and finds it."""

    def find(entry, name="mine"):
        write(json.dumps({"mine": entry, "other": {"file_name": "x.json"}}), "dataset_info.json")
        return find_sources([name], tmp_path)[0]

    return find


def test_an_entry_names_file_columns_and_tags(info, write):
    path = write([ROW], "sub/a.jsonl")
    found = info(
        {
            "file_name": "sub/a.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "talk", "system": None},
            "tags": {"role_tag": "who"},
            "num_samples": 3,
            "ranking": False,
        }
    )
    assert (found.path, found.formatting, found.num_samples) == (path, "sharegpt", 3)
    assert found.columns == (("messages", "talk"),)
    assert found.tags == (("role_tag", "who"),)
    assert found.ranking is False


def test_an_entry_without_formatting_is_alpaca(info, write):
    write([ROW], "a.jsonl")
    assert info({"file_name": "a.jsonl"}).formatting == "alpaca"


def test_a_hub_entry_keeps_subset_split_and_folder(info):
    found = info({"hf_hub_url": "o/n", "ms_hub_url": "m/n", "subset": "s", "split": "test", "folder": "f"})
    assert (found.hub_id, found.subset, found.split, found.folder) == ("o/n", "s", "test", "f")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"file_name": "none.json"}, "none.json does not exist"),
        ({"file_nam": "a.json"}, "unknown key 'file_nam'. Did you mean 'file_name'"),
        ({"file_name": "a", "columns": {"promt": "x"}}, "unknown key 'promt'. Did you mean 'prompt'"),
        ({"file_name": "a", "tags": {"rol_tag": "x"}}, "Did you mean 'role_tag'"),
        ({"file_name": "a", "formatting": "chatml"}, "formatting 'chatml'. Expected one of alpaca, openai, sharegpt"),
        ({"ms_hub_url": "a/b"}, "ModelScope"),
        ({"script_url": "a"}, "loading scripts"),
        ({"formatting": "alpaca"}, "neither file_name nor hf_hub_url"),
        ([], "is not an object"),
    ],
)
def test_an_entry_that_cannot_be_used_says_why(info, entry, message):
    with pytest.raises(DataError, match=message):
        info(entry)


def in_memory(name, text):
    """A file of fsspec's memory file system."""
    import fsspec

    with fsspec.open(f"memory://{name}", "w") as file:
        file.write(text)
    return f"memory://{name}"


def test_a_file_in_a_cloud_is_fetched_and_read_again_when_it_changes(info, tmp_path, llf_home):
    url = in_memory("/sets/rows.jsonl", json.dumps(ROW) + "\n")
    source = info({"cloud_file_name": url})
    assert (source.url, source.path) == (url, None)
    (by_name,) = find_sources([url], tmp_path)
    assert (by_name.url, by_name.label) == (url, "rows.jsonl")
    opened = open_source(by_name)
    assert opened.files[0].is_relative_to(llf_home / "cache" / "cloud")
    assert [one.row for one in read_source(opened, None, 0)] == [ROW]
    before = opened.identity()
    in_memory("/sets/rows.jsonl", json.dumps({**ROW, "output": "c"}) + "\n")
    again = open_source(by_name)
    assert [one.row["output"] for one in read_source(again, None, 0)] == ["c"]
    assert again.identity() != before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://none.jsonl", "There is no file memory://none.jsonl"),
        ("nonsense://a/b.json", "nonsense://a/b.json cannot be opened: .*use a protocol that fsspec supports"),
    ],
)
def test_a_file_that_a_cloud_does_not_give_is_one_sentence(tmp_path, url, message):
    (source,) = find_sources([url], tmp_path)
    with pytest.raises(DataError, match=message):
        open_source(source)


def test_a_disk_that_is_full_is_no_fault_of_the_cloud(tmp_path):
    (source,) = find_sources([in_memory("/sets/long.jsonl", "x" * 100_000)], tmp_path)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # in bytes
        with pytest.raises(OSError, match="File too large"):
            open_source(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_an_unknown_name_is_told_the_nearest(info):
    with pytest.raises(DataError, match=r"no data set 'mime'.*names mine, other. Did you mean 'mine'"):
        info({"file_name": "a"}, name="mime")


def test_the_shipped_set_is_found_without_any_file(tmp_path):
    assert find_sources(["llf_demo"], tmp_path)[0].path == DEMO_FILE


def test_a_path_wins_over_a_hub_id_of_the_same_look(tmp_path, write):
    path = write([ROW], "data/rows-12.parquet")
    by_folder = find_sources(["data/rows-12.parquet"], "nowhere", [tmp_path])[0]
    assert (by_folder.path, by_folder.hub_id) == (path, None)
    assert find_sources(["data/rows-13"], "nowhere", [tmp_path])[0].hub_id == "data/rows-13"


def test_a_broken_dataset_info_is_one_sentence(write, tmp_path):
    write("{", "dataset_info.json")
    with pytest.raises(DataError, match=r"dataset_info.json is not JSON"):
        find_sources(["a"], tmp_path)


def read(path, tmp_path, max_samples=None, seed=1, **entry):
    (source,) = find_sources([str(path)], tmp_path)
    source = type(source)(**{**vars(source), **entry})
    return list(read_source(open_source(source), max_samples, seed))


def test_a_folder_is_read_file_by_file_and_numbered_through(write, tmp_path):
    write('{"a": 0}\n{"a"\n', "set/1.jsonl")
    write('{"a": 2}\n', "set/2.jsonl")
    write("About", "set/README.md")
    found = read(tmp_path / "set", tmp_path)
    assert [type(one) for one in found] == [Record, BrokenLine, Record]
    assert [one.index for one in found] == [0, 1, 2]


def test_a_folder_of_two_kinds_is_refused(write, tmp_path):
    write("[]", "set/1.json")
    write("a\n", "set/2.csv")
    with pytest.raises(DataError, match=r"mixes files of the types csv, json"):
        read(tmp_path / "set", tmp_path)


def test_an_empty_folder_and_an_empty_file_are_refused(write, tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match="has no data file"):
        read(tmp_path / "set", tmp_path)
    with pytest.raises(DataError, match="is empty"):
        read(write("\n"), tmp_path)


def test_max_samples_takes_the_first_records(write, tmp_path):
    path = write('{"a": 0}\nbad\n{"a": 1}\n{"a": 2}\n')
    assert [one.index for one in read(path, tmp_path, max_samples=2)] == [0, 1, 2]


def test_num_samples_draws_without_and_then_with_replacement(write, tmp_path):
    path = write([{"a": number} for number in range(5)])
    few = [one.index for one in read(path, tmp_path, num_samples=3)]
    many = [one.index for one in read(path, tmp_path, num_samples=12)]
    assert len(set(few)) == 3
    assert sorted(many[:5]) == [0, 1, 2, 3, 4]
    assert len(many) == 12
    assert many == [one.index for one in read(path, tmp_path, num_samples=12)]
    assert many != [one.index for one in read(path, tmp_path, num_samples=12, seed=2)]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"columns": []}, None),
        ({"columns": ["a"]}, "['a']. Expected an object of strings."),
        ({"columns": {"prompt": 1}}, "{'prompt': 1}. Expected an object of strings."),
        ({"tags": [1]}, "[1]. Expected an object of strings."),
        ({"file_name": ["a.json"]}, "has file_name ['a.json']. Expected a string."),
        ({"formatting": ["alpaca"]}, "has formatting ['alpaca']. Expected a string."),
        ({"split": 1}, "has split 1. Expected a string."),
        ({"num_samples": -1}, "has num_samples -1. Expected an integer from 1 to 100,000,000, or null."),
        ({"num_samples": "many"}, "has num_samples 'many'. Expected an integer"),
        ({"num_samples": 10**12}, "has num_samples 1000000000000. Expected an integer"),
        (None, "is not an object. Expected one such as"),
    ],
)
def test_an_entry_of_the_wrong_types_is_told_in_a_sentence(tmp_path, entry, reason):
    (tmp_path / "a.json").write_text("[]")
    whole = entry if entry is None else {"file_name": "a.json", **entry}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"x": whole}))
    if reason is None:
        assert find_sources(("x",), tmp_path)
        return
    with pytest.raises(DataError) as error:
        find_sources(("x",), tmp_path)
    assert reason in str(error.value)


def test_a_pipe_in_a_folder_of_data_is_not_waited_for(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    os.mkfifo(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match=r"b\.jsonl is not a file"):
        open_source(Source("x", path=tmp_path))


def test_an_entry_with_a_name_that_is_too_long_does_not_exist(info):
    with pytest.raises(DataError, match=r"aaa\.json does not exist"):
        info({"file_name": f"{'a' * 300}.json"})


def test_a_streamed_file_may_have_a_name_in_another_encoding(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    path.write_text(json.dumps(ROW))
    found = open_source(Source("x", path=path), streaming=True).identity()
    os.utime(path, ns=(0, 0))
    assert found != open_source(Source("x", path=path), streaming=True).identity()


def test_ranking_is_true_or_false(info, write):
    write([ROW], "a.jsonl")
    with pytest.raises(DataError, match=r"has ranking 'false'\. Expected true or false"):
        info({"file_name": "a.jsonl", "ranking": "false"})


def test_labels_are_not_empty_and_show_no_password(tmp_path):
    """A label stands in reports, events and pages."""
    secret = "hidden-7f3a9c"
    names = [
        f"https://someone:{secret}@host/a/train.jsonl",
        f"https://someone:{secret}@host/b/train.jsonl",
        f"https://host/rows.jsonl?X-Amz-Signature={secret}",
        ".",
    ]
    labels = [source.label for source in find_sources(names, tmp_path)]
    assert labels == [
        "https://***@host/a/train.jsonl", "https://***@host/b/train.jsonl", "rows.jsonl", ".",
    ]  # fmt: skip


def test_a_file_that_is_named_twice_has_its_short_label(write, tmp_path):
    """As where a run evaluates on what it trains on; only files that differ need their paths."""
    first, second = (str(write([ROW], name)) for name in ("a.jsonl", "b/a.jsonl"))
    assert [one.label for one in find_sources([first, first], tmp_path)] == ["a.jsonl", "a.jsonl"]
    assert [one.label for one in find_sources([first, second], tmp_path)] == [first, second]


def test_a_signed_url_has_the_type_of_its_file_and_messages_without_the_signature():
    signed = CloudFile("https://host/rows.jsonl.gz?X-Amz-Signature=hidden-7f3a9c")
    assert (file_type(signed), signed.suffix) == ("jsonl", ".gz")
    assert str(signed) == "https://host/rows.jsonl.gz?X-Amz-Signature=***"


def test_a_pipe_is_not_said_to_be_missing(tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="is not a file or folder"):
        open_source(find_sources(["rows.jsonl"], tmp_path)[0])


def test_rows_of_a_cell_are_not_called_by_the_name_of_their_file(write, tmp_path):
    path = write([ROW], "data/rows-3f1aa0c549711d8c.parquet")
    ours = write([ROW], "rows-of-mine.parquet")
    assert [one.label for one in find_sources([str(path), str(ours)], tmp_path)] == [
        "(rows of the cell)",
        "rows-of-mine.parquet",
    ]
